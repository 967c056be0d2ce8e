"""Writes two tables for `routing.py`: two models on noisy digits, and 47 models.

    python benchmarks/digit_tables.py DIR
    python benchmarks/routing.py --data DIR --tables noisy_digits --only cascade-floors cascade-values --cascade-floor .88
    python benchmarks/routing.py --data DIR --tables digits47 --only curves

noisy_digits.csv: scikit-learn's digits, shifted by up to a pixel and noisy, 6,000 of them; a
logistic regression at $.0001 a call and 100 extremely randomised trees at $.001, both trained on
other digits. digits47.jsonl: 4,500 digits, a third as they are, a third noisy, a third shifted; 47
models from trees of depth two to support vector machines, at prices of the order of what they take.
The same on every machine with the same scikit-learn; it takes some minutes.
"""  # noqa: E501 - commands

import argparse
import csv
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

USD = {"small": 1e-4, "big": 1e-3}
NOISE, SHIFTED = 2.5, 0.35  # deviation of a pixel in 0 to 16; share of digits moved, on each axis
Digits = tuple[np.ndarray, np.ndarray]  # rows of 64 pixels, and what they show


def noisy(rng: np.random.Generator, digits: Digits, count: int) -> Digits:
    """Return `count` copies, each shifted with some probability, and noisy."""
    rows = rng.integers(0, len(digits[0]), count)
    pixels = digits[0][rows].reshape(-1, 8, 8).copy()
    for at in range(count):
        shift = rng.integers(-1, 2, 2) * (rng.random(2) < SHIFTED)
        pixels[at] = np.roll(pixels[at], shift, (0, 1))
    blurred = pixels.reshape(count, 64) + rng.normal(0, NOISE, (count, 64))
    return np.clip(blurred, 0, 16).round(1), digits[1][rows]


def mixed(rng: np.random.Generator, digits: Digits, count: int) -> Digits:
    """Return `count` copies: a third as they are, a third very noisy, a third shifted."""
    rows = rng.integers(0, len(digits[0]), count)
    pixels, kind = digits[0][rows].reshape(-1, 8, 8).copy(), rng.integers(0, 3, count)
    for at in np.flatnonzero(kind == 2):
        pixels[at] = np.roll(pixels[at], rng.integers(-1, 2, 2), (0, 1))
    noise = np.where(kind[:, None] == 1, rng.normal(0, 2 * NOISE, (count, 64)), 0)
    return np.clip(pixels.reshape(count, 64) + noise, 0, 16), digits[1][rows]


def write_two(folder: Path, known: Digits, new: Digits) -> None:
    """Write the table of two models, with their confidences."""
    rng = np.random.default_rng(0)
    (x, y), (asked, truth) = noisy(rng, known, 5000), noisy(rng, new, 6000)
    models = {
        "small": make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
        "big": ExtraTreesClassifier(100, n_jobs=1, random_state=0),
    }
    columns: dict[str, list[object]] = {"true": truth.tolist()}
    for name, model in models.items():
        sure = model.fit(x, y).predict_proba(asked)
        said = model.classes_[sure.argmax(axis=1)]
        columns[f"{name}.pred"] = said.tolist()
        columns[f"{name}.conf"] = sure.max(axis=1).round(4).tolist()
        columns[f"{name}.correct"] = (said == truth).astype(int).tolist()
        print(f"{name}: {(said == truth).mean():.3f} right")
    with (folder / "noisy_digits.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    with (folder / "prices.csv").open("w", newline="") as file:
        prices = [["NOISY_DIGITS", model, usd] for model, usd in USD.items()]
        csv.writer(file).writerows([["task", "model", "usd_per_call"], *prices])


def many() -> dict[str, tuple[Any, float, int]]:
    """Return models by name: each with its price in millionths of a dollar, and rows to learn."""
    rows = 2500
    models: dict[str, tuple[Any, float, int]] = {
        "bayes": (GaussianNB(), 0.6, rows),
        "centroid": (NearestCentroid(), 0.5, rows),
    }
    for depth in (2, 3, 4, 6, 8, 12):
        tree = DecisionTreeClassifier(max_depth=depth, random_state=0)
        models[f"tree{depth}"] = (tree, 0.3 + 0.05 * depth, rows)
    for trees in (3, 5, 10, 20, 50, 100, 200):
        forest = RandomForestClassifier(trees, random_state=0)
        models[f"forest{trees}"] = (forest, 0.5 * trees**0.9, rows)
    for trees in (3, 10, 30, 100, 200):
        extra = ExtraTreesClassifier(trees, random_state=0)
        models[f"extra{trees}"] = (extra, 0.45 * trees**0.9, rows)
    for c in (1e-4, 1e-3, 0.01, 1):
        models[f"logistic{c}"] = (LogisticRegression(C=c, max_iter=200), 1.0, rows)
    for alpha in (0.1, 10, 1000):
        models[f"ridge{alpha}"] = (RidgeClassifier(alpha=alpha), 0.9, rows)
    for near in (1, 3, 7):
        for few in (60, 300, rows):
            models[f"near{near}_{few}"] = (KNeighborsClassifier(near), 0.8 + few * 0.01, few)
    for size in (4, 8, 16, 32, 64, 128, 256):
        net = MLPClassifier((size,), max_iter=60, random_state=0)
        models[f"net{size}"] = (net, 0.8 + size * 0.02, rows)
    for c, gamma in ((0.1, 1e-3), (1, 1e-3), (10, 1e-3), (10, 0.02)):
        models[f"vectors{c}_{gamma}"] = (SVC(C=c, gamma=gamma), 6.0 * c**-0.2, rows)
    return models


def write_many(folder: Path, known: Digits, new: Digits) -> None:
    """Write the table of 47 models."""
    rng = np.random.default_rng(5)
    (x, y), (asked, truth) = mixed(rng, known, 2500), mixed(rng, new, 4500)
    models = many()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some models are left before they converge
        right = {
            name: (model.fit(x[:rows], y[:rows]).predict(asked) == truth).astype(int).tolist()
            for name, (model, _, rows) in models.items()
        }
    cost = {name: usd * 1e-6 for name, (_, usd, _) in models.items()}
    with (folder / f"digits{len(models)}.jsonl").open("w") as file:
        for at, pixels in enumerate((asked / 16).round(3).tolist()):
            q = {name: answers[at] for name, answers in right.items()}
            print(json.dumps({"id": str(at), "x": pixels, "q": q, "c": cost}), file=file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    x, y = load_digits(return_X_y=True)
    x_known, x_new, y_known, y_new = train_test_split(x, y, test_size=0.5, random_state=0)
    write_two(folder, (x_known, y_known), (x_new, y_new))
    write_many(folder, (x_known, y_known), (x_new, y_new))


if __name__ == "__main__":
    main()
