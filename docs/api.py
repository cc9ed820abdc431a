"What a thing of the package is, as Markdown: signature, docstring, arguments with their types, public methods."
import inspect
import re
from textwrap import indent, wrap

from fastcore.docments import docments

LINE = 80
UNKNOWN = inspect.Parameter.empty
MODULE_PREFIX = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Za-z_])")
NAME = re.compile(r"(?<!\[)`([A-Za-z_][\w.]*)(\(\))?`")


def type_name(annotation):
    "An annotation as one would write it, without the modules that its names come from."
    if isinstance(annotation, str):
        return annotation
    return MODULE_PREFIX.sub("", inspect.formatannotation(annotation))


def default_text(value):
    if value.__class__.__name__ == "_HAS_DEFAULT_FACTORY_CLASS":
        return "new"
    return value.__name__ if inspect.isroutine(value) or inspect.isclass(value) else repr(value)


def parameters(thing):
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return []
    return [parameter for name, parameter in signature.parameters.items() if name not in ("self", "cls")]


def signature_line(name, thing):
    "`fit(params, step, *, desc='training')`, broken where it is long."
    words, keyword_only = [], False
    for parameter in parameters(thing):
        starred = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            words.append("*")
        keyword_only |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        default = "" if parameter.default is UNKNOWN else f"={default_text(parameter.default)}"
        words.append(f"{starred}{parameter.name}{default}")
    line = f"{name}({', '.join(words)})"
    if len(line) <= LINE:
        return line
    return f"{name}(\n" + indent("\n".join(wrap(", ".join(words), LINE - 4)), "    ") + ",\n)"


def cell(words):
    "Words inside a table."
    return words.replace("|", "\\|").replace("\n", " ")


def arguments_table(thing):
    "One row an argument, where there is more to say than its name; the result comes last."
    try:
        said = {name: about["docment"] or "" for name, about in docments(thing, full=True).items()}
    except Exception:  # no source to read comments from, as in a named tuple
        said = {}
    about = [(f"`{parameter.name}`", parameter.annotation, said.get(parameter.name, "")) for parameter in parameters(thing)]
    if not inspect.isclass(thing):
        about.append(("*returns*", inspect.signature(thing).return_annotation, said.get("return", "")))
    rows = [
        f"| {name} | {'' if annotation is UNKNOWN else f'`{cell(type_name(annotation))}`'} | {cell(words)} |"
        for name, annotation, words in about
        if words or annotation is not UNKNOWN
    ]
    return "\n".join(["{.arguments}", "| | | |", "|---|---|---|", *rows]) if rows else ""


def docstring(thing, labels):
    "The docstring, with the names of documented things as links."

    def link(match):
        label = labels.get(match[1])
        return f"[{match[0]}](#{label})" if label else match[0]

    return NAME.sub(link, inspect.getdoc(thing) or "")


def methods(thing):
    "Public methods and properties that a class itself defines and documents."
    if not inspect.isclass(thing):
        return {}
    plain = {
        name: member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        for name, member in vars(thing).items()
        if not name.startswith("_")
    }
    return {
        name: member
        for name, member in plain.items()
        if (inspect.isfunction(member) or isinstance(member, property)) and member.__doc__
    }


def describe(name, thing, labels):
    "Signature (none for a property, nor for an exception that takes only its message), docstring and arguments."
    is_error = inspect.isclass(thing) and issubclass(thing, Exception) and "__init__" not in vars(thing)
    parts = []
    if callable(thing) and not is_error:
        keyword = "class " if inspect.isclass(thing) else ""
        parts.append(f"```python\n{keyword}{signature_line(name, thing)}\n```")
    parts.append(docstring(thing, labels))
    if callable(thing) and not is_error and (table := arguments_table(thing)):
        parts.append(table)
    return "\n\n".join(parts)
