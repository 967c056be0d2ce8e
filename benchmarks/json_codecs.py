"""Compares the standard library's JSON with orjson on documents of the request path."""

import json
import random
import timeit

import orjson


def main() -> None:
    rng = random.Random(0)
    pixels = [rng.random() * 16 for _ in range(64)]
    request = json.dumps(
        {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP64", "data": pixels}]}
    ).encode()
    row = {"kind": "decision", "id": "abc.def.0123", "pmf": [0.9, 0.05, 0.05], "dense": pixels}
    print(f"{'':24}{'json':>10}{'orjson':>10}{'ratio':>8}")
    for name, slow, fast in (
        ("parse a request", lambda: json.loads(request), lambda: orjson.loads(request)),
        ("write a journal row", lambda: json.dumps(row).encode(), lambda: orjson.dumps(row)),
    ):
        slow_us, fast_us = (min(timeit.repeat(call, number=2000)) * 500 for call in (slow, fast))
        print(f"{name:24}{slow_us:7.1f} us{fast_us:7.1f} us{slow_us / fast_us:8.1f}")


if __name__ == "__main__":
    main()
