"""Permutation symmetries: the function is kept on every network, the groups are all there, and bad input is named."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from starscape.data import StateError, SymmetryError, require_torchvision
from starscape.matching import match_activations, match_weights
from starscape.networks import build_network
from starscape.rescaling import balance, match_modulo
from starscape.symmetry import Element, Factor, Ordered, PermutationSymmetry, _randomise

IMAGES = torch.randn(4, 3, 32, 32)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def random_state(model, seed=0):
    return _randomise(dict(model.state_dict(keep_vars=True)), torch.Generator().manual_seed(seed))


def outputs(model, state, x):
    model = copy.deepcopy(model).double().eval()
    model.load_state_dict(state)
    with torch.no_grad():
        return model(x.double())


def assert_sensitive(symmetry, model, x):
    """Leaving any one tensor behind changes the output: the check on this network is not vacuous."""
    state, g = random_state(model), torch.Generator().manual_seed(1)
    moved, reference = symmetry.apply(symmetry.random(g), state), outputs(model, state, x)
    for name in state:
        if torch.equal(moved[name], state[name]):
            continue
        changed = outputs(model, moved | {name: state[name]}, x)
        assert (changed - reference).abs().max() > 1e-8 * reference.abs().max(), name


# --- the networks of the paper

BUILT_IN = {
    "mlp": ("mlp", {}),
    "resnet18": ("resnet18", dict(width=8)),
    "resnet20": ("resnet20", {}),
    "vgg11 with BatchNorm": ("vgg11", dict(width=8)),
    "vgg11": ("vgg11", dict(width=8, batchnorm=False)),
    "wide_resnet": ("wide_resnet", dict(depth=10, dropout=0.3)),
    "densenet": ("densenet", dict(blocks=(2, 2, 2, 2), growth=8)),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_networks_keep_their_function(name):
    network, options = BUILT_IN[name]
    model = build_network(network, input_shape=(3, 32, 32), num_classes=10, **options)
    symmetry = PermutationSymmetry.of(model, IMAGES)
    assert symmetry.verify(model, IMAGES) < 1e-10
    assert symmetry.coverage() > 0.98 and symmetry.groups


# --- transformers, grouped convolutions, and other structures, written small


class Heads(nn.Module):
    """Self-attention; `norm` and `talk` say what stands in the way of a permutation inside each head."""

    def __init__(self, width=12, heads=3, norm=False, talk=False, fused=True):
        super().__init__()
        self.heads, self.fused, d = heads, fused, width // heads
        self.qkv = nn.Linear(8, 3 * width) if fused else nn.ModuleList(nn.Linear(8, width) for _ in range(3))
        self.norm = nn.LayerNorm(d) if norm else nn.Identity()
        self.talk = nn.Linear(heads, heads) if talk else None
        self.out = nn.Linear(width, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        b, t, _ = x.shape
        if self.fused:
            q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (m(x).view(b, t, self.heads, -1).transpose(1, 2) for m in self.qkv)
        scores = self.norm(q) @ self.norm(k).transpose(-1, -2)
        if self.talk is not None:
            scores = self.talk(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        y = scores.softmax(-1) @ v
        return self.head(x + self.out(y.transpose(1, 2).flatten(2)))


TOKENS = torch.randn(2, 6, 8)


@pytest.mark.parametrize("fused", [False, True])
def test_heads_have_their_own_permutations(fused):
    model = Heads(fused=fused)
    symmetry = PermutationSymmetry.of(model, TOKENS)
    assert sorted(symmetry.groups.values()) == [3] + [4] * 6  # the heads; queries and keys of each; values of each
    symmetry.verify(model, TOKENS)
    families = [f.groups for axis in symmetry.axes["out.weight"] for s in axis for f in s if len(f.groups) > 1]
    assert len(families) == 1 and len(families[0]) == 3


def test_pytorchs_own_attention_tells_queries_and_keys_from_values():
    "Its packed projection is taken apart by unflatten, unsqueeze, transpose, squeeze and select."
    module, x = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), torch.randn(2, 5, 16)
    s = PermutationSymmetry.of(module, x)
    query, key, value = (segment[1].groups for segment in s.axes["self_attn.in_proj_weight"][0])
    assert query == key and len({*query, *value}) == 8
    assert s.verify(module, x) < 1e-12


def test_a_norm_shared_by_heads_ties_their_queries_and_keys():
    model = Heads(norm=True)
    symmetry = PermutationSymmetry.of(model, TOKENS)
    assert sorted(symmetry.groups.values()) == [3] + [4] * 4
    symmetry.verify(model, TOKENS)


def test_talking_heads_separate_the_heads_of_scores_and_values():
    model = Heads(talk=True)
    symmetry = PermutationSymmetry.of(model, TOKENS)
    assert sorted(symmetry.groups.values()) == [3, 3] + [4] * 6
    symmetry.verify(model, TOKENS)
    assert_sensitive(symmetry, Heads(talk=True), TOKENS)


def test_grouped_convolution_has_a_permutation_in_each_group():
    model = nn.Sequential(nn.Conv2d(3, 12, 1), nn.ReLU(), nn.Conv2d(12, 6, 3, groups=3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1))
    symmetry = PermutationSymmetry.of(model, IMAGES)
    assert sorted(symmetry.groups.values()) == [2] * 3 + [3] + [4] * 3
    symmetry.verify(model, IMAGES)
    state, g = random_state(model), torch.Generator().manual_seed(2)
    p, q = symmetry.random(g), symmetry.random(g)
    assert same(symmetry.apply(symmetry.compose(p, q), state), symmetry.apply(p, symmetry.apply(q, state)))
    assert same(symmetry.apply(symmetry.inverse(p), symmetry.apply(p, state)), state)
    assert_sensitive(symmetry, model, IMAGES)


@pytest.mark.parametrize("settings, free", [({}, True), (dict(stride=2, padding=4), False), (dict(padding=1), False), (dict(kernel_size=3, padding=1), False)])
def test_a_kernel_of_width_one_sees_each_position_alone(settings, free):
    class Gather(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(8, 7), nn.Linear(8, 7)
            self.mix, self.head = nn.Conv1d(2, 1, **{"kernel_size": 1, **settings}), nn.LazyLinear(3)

        def forward(self, x):
            return self.head(self.mix(torch.stack([self.one(x[:, 0]), self.two(x[:, 0])], 1)))

    model = Gather()
    model(TOKENS)
    symmetry = PermutationSymmetry.of(model, TOKENS)
    assert symmetry.groups == ({"one": 7} if free else {})
    symmetry.verify(model, TOKENS)


class Through(nn.Module):
    """A layer before, an operation on its 12 channels that the name says, a layer after."""

    def __init__(self, f, after=12):
        super().__init__()
        self.f, self.before, self.after = f, nn.Linear(8, 12), nn.Linear(after, 5)

    def forward(self, x):
        return self.after(self.f(F.relu(self.before(x))))


def written_in_place(x):
    y = x.clone()
    y[..., 6:].add_(y[..., :6])
    return y


def looked_at(x):
    half_way = x.view(*x.shape[:-1], 3, 4).transpose(-1, -2)
    return half_way.flatten(-2) * half_way.mean((-2, -1)).unsqueeze(-1)


# what is done to the channels, the width after it, and the groups that are left among them
OPERATIONS = {
    "nothing": (lambda x: x, 12, [12]),
    "sort": (lambda x: x.sort(-1).values, 12, [12]),
    "cumulative sum": (lambda x: x.cumsum(-1), 12, []),
    "roll": (lambda x: x.roll(1, -1), 12, [12]),
    "roll through all axes": (lambda x: x.roll(1), 12, []),
    "flip": (lambda x: x.flip(-1), 12, [12]),
    "added to its mirror image": (lambda x: x + x.flip(-1), 12, []),
    "take by index": (lambda x: x[..., torch.tensor([3, 1, 2])], 3, [3, 9]),
    "take some twice": (lambda x: x[..., torch.tensor([3, 1, 2, 1, 3])], 5, [2, 9]),
    "take by an index written to": (lambda x: x[..., torch.tensor([3, 1, 2]).add_(1)], 3, []),
    "every second": (lambda x: x[..., ::2], 6, [6, 6]),
    "halves added in place": (written_in_place, 12, [6]),
    "halves swapped": (lambda x: torch.cat([x[..., 6:], x[..., :6]], -1), 12, [6, 6]),
    "gated halves": (lambda x: x[..., :6] * x[..., 6:].sigmoid(), 6, [6]),
    "uneven parts": (lambda x: torch.cat([x[..., 9:], x[..., :9]], -1), 12, [3, 9]),
    "shuffle": (lambda x: x.view(*x.shape[:-1], 3, 4).transpose(-1, -2).flatten(-2), 12, [12]),
    "shuffle, looked at half way": (looked_at, 12, [3, 4]),
    "softmax over groups": (lambda x: x.view(*x.shape[:-1], 3, 4).softmax(-2).flatten(-2), 12, [3, 4]),
    "softmax in groups": (lambda x: x.view(*x.shape[:-1], 3, 4).softmax(-1).flatten(-2), 12, [3, 4, 4, 4]),
    "maximum over groups": (lambda x: x.view(*x.shape[:-1], 3, 4).amax(-2), 4, [3, 4]),
    "times an outer product": (lambda x: x.view(*x.shape[:-1], 3, 4) @ x.view(*x.shape[:-1], 3, 4).mT, 3, [4]),
    "repeated": (lambda x: x.repeat(1, 1, 2), 24, [12]),
    "added to positions": (lambda x: x + torch.arange(12.0), 12, []),
    "added to a constant": (lambda x: x + torch.full((12,), 2.0), 12, [12]),
    "padded": (lambda x: F.pad(x, (2, 2)), 16, [12]),
    "normalised": (lambda x: F.normalize(x, dim=-1), 12, [12]),
    "einsum": (lambda x: torch.einsum("btc,bsc,bsd->btd", x, x, x), 12, [12]),
    "largest and where": (lambda x: x.max(-1).indices.unsqueeze(-1).to(x.dtype) + x, 12, []),
    "top two": (lambda x: x.topk(2, -1).values, 2, [12]),
    "peeked at for its shape": (lambda x: x + torch.zeros(x[..., 3].shape).unsqueeze(-1), 12, [12]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_channels(name):
    f, after, groups = OPERATIONS[name]
    model = Through(f, after)
    symmetry = PermutationSymmetry.of(model, TOKENS)
    symmetry.verify(model, TOKENS)
    on_channels = {g for a in symmetry.axes["before.weight"][0] for factor in a for g in factor.groups}
    assert sorted(symmetry.groups[g] for g in on_channels) == sorted(groups)
    if groups:
        assert_sensitive(symmetry, model, TOKENS)


@torch.library.custom_op("starscape_tests::weigh", mutates_args=())
def weigh(x: torch.Tensor) -> torch.Tensor:
    return x * torch.arange(x.shape[-1], dtype=x.dtype)


@weigh.register_fake
def _(x):
    return torch.empty_like(x)


def test_an_unknown_operator_pins_what_it_touches_and_is_named():
    model = Through(lambda x: weigh(x))
    symmetry = PermutationSymmetry.of(model, TOKENS)
    assert not symmetry.groups
    frame = symmetry.frame()
    pinned = frame[(frame.parameter == "before.weight") & (frame.axis == 0)]
    assert list(pinned.pinned_by) == ["starscape_tests.weigh"] and pinned.source.iloc[0].startswith("test_symmetry.py:")
    symmetry.verify(model, TOKENS)


# --- axes in other orders


class Shuffles(nn.Module):
    """ShuffleNetV2 in small: half of the channels pass by, and the halves are shuffled into each other."""

    def __init__(self, width=7, blocks=3):
        super().__init__()
        self.stem, self.side = nn.Linear(8, width), nn.Linear(8, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.head = nn.Linear(2 * width, 3)

    def forward(self, x):
        x = self.shuffled(torch.cat([self.stem(x), self.side(x)], -1))
        for block in self.blocks:
            kept, seen = x.chunk(2, -1)
            x = self.shuffled(torch.cat([kept, F.relu(block(seen))], -1))
        return self.head(x)

    def shuffled(self, x):
        return x.unflatten(-1, (2, -1)).transpose(-1, -2).flatten(-2)


def shuffled_cells(width, blocks):
    """How many units of one layer are read by the same layers, counted unit by unit: these may trade places, and no others."""
    x = [(layer, i) for i in range(width) for layer in ("stem", "side")]
    readers = {}
    for block in range(blocks):
        kept, seen = x[:width], x[width:]
        for unit in seen:
            readers.setdefault(unit, []).append(block)
        x = [unit for pair in zip(kept, [(block, i) for i in range(width)]) for unit in pair]
    for unit in x:
        readers.setdefault(unit, []).append("head")
    cells = {}
    for (layer, _), read in readers.items():
        cells[layer, tuple(read)] = cells.get((layer, tuple(read)), 0) + 1
    return sorted(n for n in cells.values() if n > 1)


@pytest.mark.parametrize("width, blocks", [(4, 1), (7, 3), (16, 4)])
def test_shuffled_halves_have_every_symmetry_there_is(width, blocks):
    model = Shuffles(width, blocks)
    symmetry = PermutationSymmetry.of(model, TOKENS)
    assert sorted(symmetry.groups.values()) == shuffled_cells(width, blocks)
    assert symmetry.verify(model, TOKENS) < 1e-10
    assert_sensitive(symmetry, model, TOKENS)
    state, g = random_state(model), torch.Generator().manual_seed(2)
    p, q = symmetry.random(g), symmetry.random(g)
    assert same(symmetry.apply(symmetry.compose(p, q), state), symmetry.apply(p, symmetry.apply(q, state)))
    assert same(symmetry.apply(symmetry.inverse(p), symmetry.apply(p, state)), state)
    scaled = PermutationSymmetry.of(model, TOKENS, modulo=ALL)
    assert scaled.rescalings and scaled.verify(model, TOKENS) < 1e-10


def test_a_planted_permutation_of_shuffled_channels_is_found():
    model = Shuffles(16, 4)
    symmetry, state = PermutationSymmetry.of(model, TOKENS), random_state(model)
    assert any(isinstance(axis, Ordered) for axes in symmetry.axes.values() for axis in axes)
    planted = symmetry.apply(symmetry.random(torch.Generator().manual_seed(3)), state)
    assert same(symmetry.apply(match_weights(symmetry, state, planted), planted), state)
    x, single = torch.randn(64, 8), lambda s: {k: v.float() for k, v in s.items()}
    found = match_activations(symmetry, single(state), single(planted), model=model, inputs=x)
    assert same(symmetry.apply(found, planted), state)
    wide = PermutationSymmetry.of(model, TOKENS, modulo=ALL)
    moved = wide.apply(wide.random(torch.Generator().manual_seed(4)), state)
    for name, tensor in wide.apply(match_modulo(wide, state, moved), moved).items():
        assert torch.allclose(tensor, state[name], rtol=1e-6), name


# --- what users write: right, or refused by name


class Recurrent(nn.Module):
    """A recurrent layer; `out` says what is read of it, and `first` makes its first state."""

    def __init__(self, layer, out, width, first=None):
        super().__init__()
        self.layer, self.out, self.head = layer, out, nn.Linear(width, 3)
        self.first = None if first is None else nn.Parameter(torch.randn(first))

    def forward(self, x):
        state = None if self.first is None else self.first.expand(-1, len(x), -1).contiguous()
        if state is not None and isinstance(self.layer, nn.LSTM):
            state = (state, state * 2)
        return self.head(self.out(*self.layer(x, state)))


class Encoder(nn.Module):
    """What one recurrent layer remembers is where another begins."""

    def __init__(self):
        super().__init__()
        self.reads, self.writes, self.head = nn.LSTM(8, 5, batch_first=True), nn.LSTM(8, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.writes(x, self.reads(x)[1])[0])


class Steps(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell, self.head = cell, nn.Linear(5, 3)

    def forward(self, x):
        state = self.cell(x[:, 0])
        for t in range(1, 3):
            state = self.cell(x[:, t], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


def lstm(layers=1, **options):
    return nn.LSTM(8, 5, layers, batch_first=True, **options)


RECURRENT = {  # and the groups there are
    "all outputs": (lambda: Recurrent(lstm(2), lambda y, s: y, 5), [5, 5]),
    "both directions": (lambda: Recurrent(lstm(1, bidirectional=True), lambda y, s: y, 10), [5, 5]),
    "the last state of each layer": (lambda: Recurrent(lstm(2), lambda y, s: s[0][0] + 2 * s[0][1], 5), [5]),
    "the last state of the first layer": (lambda: Recurrent(lstm(2), lambda y, s: torch.cat([y[:, -1], s[1][0]], -1), 10), [5, 5]),
    "the last states, in a row": (lambda: Recurrent(nn.GRU(8, 5, 2, batch_first=True), lambda y, s: s.movedim(0, 1).flatten(1), 10), [5]),
    "a learned first state": (lambda: Recurrent(lstm(), lambda y, s: y, 5, first=(1, 1, 5)), [5]),
    "a learned first state of two layers": (lambda: Recurrent(nn.GRU(8, 5, 2, batch_first=True), lambda y, s: y, 5, first=(2, 1, 5)), [5]),
    "a projection": (lambda: Recurrent(lstm(proj_size=3), lambda y, s: y, 3), [3, 5]),
    "an encoder": (Encoder, [5]),
    "an LSTM cell": (lambda: Steps(nn.LSTMCell(8, 5)), [5]),
    "a GRU cell": (lambda: Steps(nn.GRUCell(8, 5)), [5]),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_what_a_recurrent_layer_remembers_moves_with_it(name):
    make, groups = RECURRENT[name]
    model = make()
    symmetry = PermutationSymmetry.of(model, TOKENS)
    assert sorted(symmetry.groups.values()) == groups and symmetry.verify(model, TOKENS) < 1e-10
    assert_sensitive(symmetry, model, TOKENS)


def set_where(x):
    y, mask = x.clone(), torch.zeros(12, dtype=torch.bool)
    mask[4:] = True
    y[..., mask] = 0
    return y


def set_rows(x):
    y, mask = x.clone(), x.sum(-1) > 1
    y[mask] = x[mask] * 2
    return y


def spectrum(x):
    return torch.fft.irfft(torch.fft.rfft(x, dim=1) * torch.polar(torch.ones(4), torch.arange(4.0))[:, None], n=6, dim=1)


USER_WRITTEN = {  # what is done to 12 channels, and the groups left among them
    "in place under a mask": (set_where, [4, 8]),
    "some rows in place": (set_rows, [12]),
    "a spectrum over time": (spectrum, [12]),
    "a spectrum over channels": (lambda x: torch.fft.fft(x).abs(), []),
    "rows picked by an index": (lambda x: x.gather(1, torch.zeros(2, 6, 1, dtype=torch.long).expand(-1, -1, 12)), [12]),
    "rows added by an index": (lambda x: torch.zeros(2, 6, 12).index_add(1, torch.tensor([0, 0, 1, 1, 2, 2]), x), [12]),
    "rows under a mask": (lambda x: x[x.sum(-1) > 1], [12]),
    "distances": (lambda x: torch.cdist(x, x) @ x, [12]),
    "an einsum with no arrow": (lambda x: torch.einsum("btc,bsc", x, x) @ x, [12]),
    "the median of time": (lambda x: x - x.median(1, keepdim=True).values, [12]),
    "which is largest": (lambda x: F.one_hot(x.argmax(-1), 12) * x, []),
    "windows of time": (lambda x: x.unfold(1, 3, 1).sum(-1), [12]),
    "a matrix of ones": (lambda x: x @ torch.ones(12, 12), [12]),
    "one part in every third place": (lambda x: torch.stack([x[..., i::3] for i in (2, 0, 1)], -1).flatten(-2), [4]),
    "another type": (lambda x: x.float().view(torch.int32).bitwise_and(-1).view(torch.float32), [12]),
}


@pytest.mark.parametrize("name", USER_WRITTEN)
def test_what_users_write(name):
    f, groups = USER_WRITTEN[name]
    model = Through(f)
    symmetry = PermutationSymmetry.of(model, TOKENS)
    on_channels = {g for a in symmetry.axes["before.weight"][0] for factor in a for g in factor.groups}
    assert sorted(symmetry.groups[g] for g in on_channels) == groups
    if name != "another type":
        symmetry.verify(model, TOKENS)


@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm, nn.utils.weight_norm])
def test_parametrised_weights(wrap):
    model = nn.Sequential(wrap(nn.Conv1d(6, 7, 3)), nn.ReLU(), wrap(nn.Conv1d(7, 5, 3)), nn.Tanh(), nn.Conv1d(5, 2, 1))
    symmetry = PermutationSymmetry.of(model, TOKENS)
    assert sorted(symmetry.groups.values()) == [5, 7] and symmetry.verify(model, TOKENS) < 1e-10


def test_tokens_routed_to_experts():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = nn.Linear(8, 4)
            self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 5)) for _ in range(4))

        def forward(self, x):
            x = x.flatten(0, 1)
            chosen, out = self.gate(x).argmax(-1), x.new_zeros(len(x), 5)
            for i, expert in enumerate(self.experts):
                rows = torch.where(chosen == i)[0]  # how many there are depends on the data
                out.index_add_(0, rows, expert(x[rows]))
            return out

    symmetry = PermutationSymmetry.of(Routed(), TOKENS)
    assert sorted(symmetry.groups.values()) == [9] * 4 and symmetry.verify(Routed(), TOKENS) < 1e-10


def test_a_form_of_an_operator_that_its_rule_does_not_know_pins():
    model = Through(lambda x: x.float().view(torch.float16).view(torch.float32))
    symmetry = PermutationSymmetry.of(model, TOKENS)
    assert not symmetry.groups and "view" in set(symmetry.frame().pinned_by)
    with pytest.raises(SymmetryError, match="cannot be checked: it does not run in float64"):
        symmetry.verify(model, TOKENS)


# --- how parameters are held


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.out = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 11, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, i):
        e = self.embed(i)
        return self.out(e + F.relu(self.mix(e)))


def test_tied_weights_move_together():
    words, model = torch.randint(0, 11, (2, 5)), Tied()
    symmetry = PermutationSymmetry.of(model, words)
    assert symmetry.axes["embed.weight"] == symmetry.axes["out.weight"]
    symmetry.verify(model, words)
    state = random_state(model)
    moved = symmetry.apply(symmetry.random(torch.Generator().manual_seed(0)), state)
    assert torch.equal(moved["embed.weight"], moved["out.weight"]) and not torch.equal(moved["out.weight"], state["out.weight"])


def test_shared_frozen_unused_and_constant_tensors():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.shared, self.last = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 4)
            self.unused = nn.Linear(6, 6)
            self.first.weight.requires_grad_(False)
            self.register_buffer("table", torch.randn(6), persistent=False)
            self.register_buffer("scale", torch.full((6,), 3.0), persistent=False)

        def forward(self, x):
            x = F.relu(self.first(x)) * self.scale
            return self.last(F.relu(self.shared(F.relu(self.shared(x)))))

    class WithTable(Odd):
        def forward(self, x):
            return super().forward(x) + self.last(F.relu(self.first(x)) + self.table)

    model = Odd()
    symmetry = PermutationSymmetry.of(model, TOKENS)
    assert symmetry.groups == {"first": 6}  # the shared layer's input and output are one group
    symmetry.verify(model, TOKENS)
    frame = symmetry.frame()
    assert set(frame[frame.parameter.str.startswith("unused")].pinned_by) == {"unused"}
    pinned = PermutationSymmetry.of(WithTable(), TOKENS)
    assert not pinned.groups and "constant tensor" in set(pinned.frame().pinned_by)


def test_train_mode_counts():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.aux, self.head = nn.Linear(8, 6), nn.Linear(6, 5), nn.Linear(6, 5)

        def forward(self, x):
            h = F.relu(self.body(x))
            return (self.head(h), self.aux(h.cumsum(-1))) if self.training else self.head(h)

    symmetry = PermutationSymmetry.of(Auxiliary(), TOKENS)
    assert not symmetry.groups
    symmetry.verify(Auxiliary(), TOKENS)


def test_of_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    PermutationSymmetry.of(model, IMAGES).verify(model, IMAGES)
    assert same(before, dict(model.state_dict())) and model[0].training and not model[1].training and "forward" not in vars(model)


# --- random networks


class RandomNetwork(nn.Module):
    """Layers drawn by hypothesis: widths, and whether each is joined to the last by a sum, a concatenation, or not."""

    def __init__(self, layers, convolutional, act=nn.ReLU):
        super().__init__()
        self.convolutional, self.kinds, self.layers = convolutional, [k for _, k, _ in layers], nn.ModuleList()
        width = 3
        for out, kind, norm in layers:
            out = width if kind == "sum" else out
            layer = nn.Conv2d(width, out, 3, padding=1) if convolutional else nn.Linear(width, out)
            norms = (nn.BatchNorm2d(out), nn.GroupNorm(1, out)) if convolutional else (nn.BatchNorm1d(out), nn.LayerNorm(out))
            self.layers.append(nn.Sequential(layer, norms[norm] if norm < 2 else nn.Identity(), act()))
            width = width + out if kind == "concatenate" else out
        self.head = nn.Linear(width * (4 if convolutional else 1), 3)

    def forward(self, x):
        for kind, layer in zip(self.kinds, self.layers):
            y = layer(x)
            x = x + y if kind == "sum" else torch.cat([x, y], 1) if kind == "concatenate" else y
        return self.head(F.adaptive_avg_pool2d(x, 2).flatten(1) if self.convolutional else x)


LAYERS = st.lists(st.tuples(st.integers(2, 7), st.sampled_from(["chain", "sum", "concatenate"]), st.integers(0, 2)), min_size=1, max_size=5)


@settings(max_examples=15, deadline=None)
@given(layers=LAYERS, convolutional=st.booleans(), seed=st.integers(0, 2**31))
def test_any_permutation_keeps_the_logits_and_the_laws_hold(layers, convolutional, seed):
    model = RandomNetwork(layers, convolutional)
    x = torch.randn(4, 3, 5, 5) if convolutional else torch.randn(4, 3)
    symmetry = PermutationSymmetry.of(model, x)
    assert symmetry.verify(model, x, seed=seed) < 1e-10
    g, state = torch.Generator().manual_seed(seed), random_state(model, seed)
    p, q, r = (symmetry.random(g) for _ in range(3))
    e = symmetry.identity()
    assert same(symmetry.compose(symmetry.compose(p, q), r), symmetry.compose(p, symmetry.compose(q, r)))
    assert same(symmetry.compose(p, e), p) and same(symmetry.compose(e, p), p)
    assert same(symmetry.compose(p, symmetry.inverse(p)), e) and same(symmetry.compose(symmetry.inverse(p), p), e)
    assert same(symmetry.apply(symmetry.compose(p, q), state), symmetry.apply(p, symmetry.apply(q, state)))
    chained = [w for w, k, _ in layers if k == "chain"]
    assert len(symmetry.groups) >= len(chained)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_laws_hold_for_heads(seed):
    model, g = Heads(), torch.Generator().manual_seed(seed)
    symmetry, state = PermutationSymmetry.of(model, TOKENS), random_state(model, seed)
    p, q, r = (symmetry.random(g) for _ in range(3))
    assert same(symmetry.compose(symmetry.compose(p, q), r), symmetry.compose(p, symmetry.compose(q, r)))
    assert same(symmetry.apply(symmetry.compose(p, q), state), symmetry.apply(p, symmetry.apply(q, state)))
    assert same(symmetry.apply(symmetry.inverse(p), symmetry.apply(p, state)), state)


# --- modulo more than permutations

ALL = ("permutation", "scale", "sign")


def chain(act, *norm):
    return nn.Sequential(nn.Linear(2, 3), *norm, act, nn.Linear(3, 2), act, nn.Linear(2, 1))


def free_scales(model, x, samples=400):
    """The dimension of all diagonal rescalings of the parameters that keep the function, from derivatives alone."""
    model, rows, g = copy.deepcopy(model).double().eval(), [], torch.Generator().manual_seed(0)
    for _ in range(samples):
        parameters = {k: torch.randn(p.shape, generator=g, dtype=torch.float64, requires_grad=True) for k, p in model.named_parameters()}
        buffers = {k: torch.rand(b.shape, generator=g, dtype=torch.float64) for k, b in model.named_buffers() if b.is_floating_point()}
        out = torch.func.functional_call(model, parameters | buffers, (torch.randn(x.shape, generator=g, dtype=torch.float64),)).flatten()
        gradients = torch.autograd.grad(out[torch.randint(len(out), (), generator=g)], list(parameters.values()), allow_unused=True)
        rows.append(torch.cat([(p * (0 * p if d is None else d)).flatten().detach() for p, d in zip(parameters.values(), gradients)]))
    rows = torch.stack(rows)
    return rows.shape[1] - int(torch.linalg.matrix_rank(rows / rows.norm(dim=0).clamp_min(1e-30), rtol=1e-9))


class GatedUnits(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


SCALED = {
    "relu": (lambda: chain(nn.ReLU()), torch.randn(4, 2)),
    "leaky relu": (lambda: chain(nn.LeakyReLU(0.2)), torch.randn(4, 2)),
    "tanh": (lambda: chain(nn.Tanh()), torch.randn(4, 2)),
    "gelu": (lambda: chain(nn.GELU()), torch.randn(4, 2)),
    "linear": (lambda: chain(nn.Identity()), torch.randn(4, 2)),
    "batch norm": (lambda: chain(nn.ReLU(), nn.BatchNorm1d(3)), torch.randn(4, 2)),
    "layer norm": (lambda: chain(nn.ReLU(), nn.LayerNorm(3)), torch.randn(4, 2)),
    "gated": (GatedUnits, torch.randn(4, 3)),
    "heads": (lambda: Heads(width=4, heads=2, fused=False), torch.randn(1, 3, 8)),
}


@pytest.mark.parametrize("name", SCALED)
def test_all_scales_are_found_and_no_other(name):
    make, x = SCALED[name]
    model = make()
    symmetry = PermutationSymmetry.of(model, x, modulo=ALL)
    found = sum(symmetry.groups[r.group] for r in symmetry.rescalings.values() if r.kind == "scale")
    assert found == free_scales(model, x) and (found > 0) == (name not in ("tanh", "gelu"))
    symmetry.verify(model, x)


@pytest.mark.parametrize("act, units", [(nn.Tanh(), 4), (nn.ReLU(), 0), (nn.GELU(), 0), (nn.Sigmoid(), 0), (nn.Identity(), 4)])
def test_all_sign_flips_are_found_and_no_other(act, units):
    model, x = nn.Sequential(nn.Linear(1, 2), act, nn.Linear(2, 2, bias=False), act, nn.Linear(2, 1)).double(), torch.randn(5, 1).double()
    symmetry = PermutationSymmetry.of(model, x, modulo=ALL)
    assert sum(symmetry.groups[r.group] for r in symmetry.rescalings.values() if r.kind == "sign") == units
    x, state = 3 * torch.randn(64, 1).double(), dict(model.named_parameters())
    sizes, kept = [p.numel() for p in state.values()], 0
    draws = torch.randn(4, sum(sizes), dtype=torch.float64)  # what keeps the function must keep it for any parameters

    def compute(flat):
        return torch.func.functional_call(model, {k: v.view_as(p) for (k, p), v in zip(state.items(), flat.split(sizes))}, (x,))

    with torch.no_grad():
        references = [compute(flat) for flat in draws]
        for signs in itertools.product((1.0, -1.0), repeat=sum(sizes)):
            flips = torch.tensor(signs, dtype=torch.float64)
            kept += all(torch.allclose(compute(flat * flips), r, atol=1e-12) for flat, r in zip(draws, references))
    assert kept == 2**units


@settings(max_examples=12, deadline=None)
@given(layers=LAYERS, convolutional=st.booleans(), act=st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.Identity]), seed=st.integers(0, 2**31))
def test_any_element_keeps_the_logits_and_the_laws_hold(layers, convolutional, act, seed):
    model = RandomNetwork(layers, convolutional, act)
    x = torch.randn(4, 3, 5, 5) if convolutional else torch.randn(4, 3)
    symmetry = PermutationSymmetry.of(model, x, modulo=ALL)
    assert symmetry.verify(model, x, seed=seed) < 1e-10
    g, state = torch.Generator().manual_seed(seed), random_state(model, seed)
    p, q = symmetry.random(g), symmetry.random(g)
    close = lambda a, b: a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=1e-10) for k in a)
    assert close(symmetry.apply(symmetry.compose(p, q), state), symmetry.apply(p, symmetry.apply(q, state)))
    assert close(symmetry.apply(symmetry.inverse(p), symmetry.apply(p, state)), state)
    assert close(symmetry.apply(symmetry.identity(), state), state)


def test_elements_of_heads_compose():
    model = Heads()
    symmetry, state, g = PermutationSymmetry.of(model, TOKENS, modulo=ALL), random_state(model), torch.Generator().manual_seed(3)
    p, q = symmetry.random(g), symmetry.random(g)
    assert symmetry.rescalings
    for name, moved in symmetry.apply(symmetry.compose(p, q), state).items():
        assert torch.allclose(moved, symmetry.apply(p, symmetry.apply(q, state))[name], rtol=1e-10)
    for name, moved in symmetry.apply(symmetry.inverse(p), symmetry.apply(p, state)).items():
        assert torch.allclose(moved, state[name], rtol=1e-10)


def test_what_forbids_a_rescaling_is_named_and_wrong_elements_are_refused():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3)
    symmetry, state = PermutationSymmetry.of(model, x, modulo=ALL), model.state_dict()
    assert list(symmetry.rescalings) == ["scale:2"] and "1 scales" in repr(symmetry) and "1 scales" in symmetry._repr_html_()
    frame = symmetry.frame().set_index(["parameter", "axis"])
    assert frame.scale["0.weight", 0].startswith("gelu 1 ") and frame.sign["2.weight", 0].startswith("relu 3 ")
    assert frame.scale["2.weight", 0] == "+1" and frame.scale["4.weight", 1] == "-1"
    p = symmetry.identity()
    for factors, message in (({"scale:2": -torch.ones(4)}, "positive"), ({"scale:2": torch.ones(3)}, r"has 4 factors, the element \(3,\)"),
                             ({"scale:0": torch.ones(4)}, "no rescaling")):  # fmt: skip
        with pytest.raises(SymmetryError, match=message):
            symmetry.apply(Element(p.permutation, factors), state)
    for modulo in ("scale", ("scale",), ("permutation", "rotation")):
        with pytest.raises(SymmetryError, match="modulo"):
            PermutationSymmetry.of(model, x, modulo=modulo)
    assert not PermutationSymmetry.of(model, x).rescalings and isinstance(PermutationSymmetry.of(model, x).random(), dict)


def test_verify_catches_a_wrong_rescaling():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3)
    right = PermutationSymmetry.of(model, x, modulo=ALL)
    (name, r), = right.rescalings.items()
    for left_out in range(3):
        exponents = r.exponents[:left_out] + r.exponents[left_out + 1 :]
        wrong = copy.copy(right)
        object.__setattr__(wrong, "rescalings", {name: type(r)(r.group, r.kind, exponents)})
        with pytest.raises(SymmetryError, match="computes another function"):
            wrong.verify(model, x)


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.Identity])
def test_a_planted_element_is_undone(act):
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), act(), nn.Conv2d(6, 8, 3), act(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                          nn.Linear(32, 7), act(), nn.Linear(7, 4)).double()  # fmt: skip
    symmetry, g = PermutationSymmetry.of(model, IMAGES.double(), modulo=ALL), torch.Generator().manual_seed(5)
    state = {k: torch.rand_like(v) if "var" in k else torch.randn_like(v) if v.is_floating_point() else v for k, v in model.state_dict().items()}
    planted = symmetry.apply(symmetry.random(g), state)
    back = symmetry.apply(match_modulo(symmetry, state, planted), planted)
    for name in state:
        assert torch.allclose(back[name], state[name], rtol=1e-6, atol=1e-9), name


def test_order_and_signs_are_the_best_there_are_on_a_tiny_network():
    model, x = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)).double(), torch.randn(2, 2).double()
    symmetry, g = PermutationSymmetry.of(model, x, modulo=ALL), torch.Generator().manual_seed(0)
    draw = lambda: {k: torch.randn(v.shape, generator=g, dtype=v.dtype) for k, v in model.state_dict().items()}
    for _ in range(5):
        a, b = draw(), draw()
        value = lambda e: sum((a[k] * v).sum() for k, v in symmetry.apply(e, b).items())  # noqa: B023
        every = [value(Element({"0": torch.tensor(p)}, {"sign:0": torch.tensor(s, dtype=torch.float64)}))
                 for p in itertools.permutations(range(3)) for s in itertools.product((1, -1), repeat=3)]  # fmt: skip
        assert torch.isclose(value(match_modulo(symmetry, a, b)), max(every))


def test_balance_is_the_least_norm_and_bears_dead_units():
    model, x = chain(nn.ReLU()).double(), torch.randn(3, 2).double()
    symmetry, state = PermutationSymmetry.of(model, x, modulo=ALL), dict(model.state_dict())
    state["0.weight"] = state["0.weight"] * torch.tensor([[1.0], [0.0], [1.0]])
    state["0.bias"] = state["0.bias"] * torch.tensor([1.0, 0.0, 1.0])
    norm = lambda s: sum((v**2).sum() for v in s.values())
    least = symmetry.apply(balance(symmetry, state), state)
    for seed in range(20):
        factors = symmetry.random(torch.Generator().manual_seed(seed)).factors
        factors["scale:0"][1] = 1  # the dead unit has no least norm
        assert norm(symmetry.apply(Element(symmetry.identity().permutation, factors), least)) > norm(least)
    with pytest.raises(SymmetryError, match="match_weights"):
        match_modulo(PermutationSymmetry.of(model, x), state, state)


# --- a few real architectures (the wide sweep is benchmarks/symmetry_coverage.py)


@pytest.mark.parametrize("name, size", [("resnext50_32x4d", 32), ("shufflenet_v2_x0_5", 32), ("efficientnet_b0", 32), ("swin_t", 32)])
def test_torchvision(name, size):
    torch.manual_seed(0)
    model, images = getattr(require_torchvision().models, name)(num_classes=10), torch.randn(2, 3, size, size)
    symmetry = PermutationSymmetry.of(model, images)
    assert symmetry.verify(model, images) < 1e-10 and symmetry.coverage() > 0.999


def test_amplified_rounding_is_no_other_function():
    "Two examples that are nearly the same have little variance, and a layer that divides by it makes much of rounding."
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, eps=1e-30), nn.ReLU(), nn.Linear(6, 3))
    x = torch.randn(1, 4) * torch.tensor([[1.0], [1 + 1e-6]])
    symmetry = PermutationSymmetry.of(model, x)
    assert symmetry.groups == {"0": 6} and 1e-11 < symmetry.verify(model, x, tolerance=1e-11) < 1e-6
    wrong = PermutationSymmetry.from_spec({"0.weight": ["0", None], "0.bias": ["0"]}, model.state_dict())
    with pytest.raises(SymmetryError, match="another function"):
        wrong.verify(model, x)


# --- errors and reports


def test_bad_states_permutations_and_specs_are_named():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    symmetry = PermutationSymmetry.of(model, torch.randn(2, 4))
    state, p = model.state_dict(), symmetry.identity()
    with pytest.raises(StateError, match=r"0\.weight: the network has shape \(6, 4\), the state \(5, 4\)"):
        symmetry.apply(p, state | {"0.weight": torch.zeros(5, 4)})
    with pytest.raises(StateError, match=r"2\.bias: not in the state"):
        symmetry.apply(p, {k: v for k, v in state.items() if k != "2.bias"})
    with pytest.raises(StateError, match="extra: in the state, but not in the network"):
        symmetry.apply(p, state | {"extra": torch.zeros(1)})
    with pytest.raises(SymmetryError, match="no group '0'"):
        symmetry.apply({}, state)
    with pytest.raises(SymmetryError, match="Group '0' has 6 indices"):
        symmetry.apply({"0": torch.arange(5)}, state)
    with pytest.raises(SymmetryError, match="Group '0' is not a permutation"):
        symmetry.apply({"0": torch.zeros(6, dtype=torch.long)}, state)
    with pytest.raises(SymmetryError, match="group 'a' has 3 indices here, 6 elsewhere"):
        PermutationSymmetry.from_spec({"0.weight": ("a", None), "2.weight": ("a", None)}, state)
    with pytest.raises(SymmetryError, match=r"0\.weight: the spec has 1 axes"):
        PermutationSymmetry.from_spec({"0.weight": ("a",)}, state)
    with pytest.raises(SymmetryError, match="nowhere"):
        PermutationSymmetry.from_spec({"nowhere": (None,)}, state)


def test_a_model_that_cannot_be_traced_is_told_where():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 5)

        def forward(self, x):
            if self.layer(x).mean() > 0:  # depends on the data
                return x
            return -x

    with pytest.raises(SymmetryError, match=r"test_symmetry\.py:\d+, in forward: if self\.layer\(x\)\.mean\(\) > 0"):
        PermutationSymmetry.of(Branches(), TOKENS)


def test_verify_catches_a_wrong_symmetry_behind_a_zero_head():
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5))
    nn.init.zeros_(model[3].weight)
    x = torch.randn(4, 8)
    right = PermutationSymmetry.of(model, x)
    right.verify(model, x)
    for left_out in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "3.weight"):
        axes = right.axes | {left_out: tuple(((Factor(n),),) for n in model.state_dict()[left_out].shape)}
        with pytest.raises(SymmetryError, match="computes another function"):
            PermutationSymmetry(right.groups, axes, right.buffers).verify(model, x)


def test_reports_are_text_never_html():
    model = nn.Sequential()
    model.add_module("<b>bold", nn.Linear(4, 6))
    model.add_module("last", nn.Linear(6, 3))
    symmetry = PermutationSymmetry.of(model, torch.randn(2, 4))
    assert "<b>bold" not in symmetry._repr_html_() and "&lt;b&gt;bold" in symmetry._repr_html_()
    assert "<b>bold: 6" in repr(symmetry) and "coverage" in repr(symmetry)
    frame = symmetry.frame()
    assert set(frame[frame.group == "<b>bold"].parameter) == {"<b>bold.weight", "<b>bold.bias", "last.weight"}
