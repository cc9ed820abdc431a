"Train the zoo that comes with the package (`Zoo.example()`): small MLPs on digits, and their star."
import shutil
import sys
from pathlib import Path

import torch

from starscape.barriers import barriers, summarise, sweep
from starscape.data import load_task
from starscape.networks import Network
from starscape.star_training import train_star
from starscape.training import Recipe, train_population

torch.set_num_threads(1)
folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "starscape" / "example_zoo")
task = load_task("digits")
zoo = train_population(task, Network("mlp", width=64, depth=2), Recipe(epochs=60), folder, n_sources=10, n_heldout=4)
train_star(task, zoo, Recipe(epochs=200))
table = summarise(barriers(sweep(zoo, ["star-source", "star-heldout", "regular-regular"], task, cached=False)))
print(table.round(3).to_string())
shutil.rmtree(folder / ".unfinished", ignore_errors=True)
for file in folder.glob("cache.sqlite*"):
    file.unlink()
