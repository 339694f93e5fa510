"""Extracted features are in memory once; workers extract a bank together."""

import threading
import tracemalloc

import numpy as np
import pytest

from simsiam_tf import data
from simsiam_tf.data import AUGMENTATIONS, Views
from simsiam_tf.evaluate import knn_monitor
from simsiam_tf.features import extraction


class Block:
    """What stands for a tensor."""

    def __init__(self, rows):
        self.rows = rows

    def numpy(self):
        return self.rows


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_are_in_memory_once(monkeypatch, dtype):
    width, rows = 4096, 1437
    monkeypatch.setattr(
        extraction, "forward", lambda b: lambda x: Block(np.full((len(x), width), x.shape[0], dtype))
    )
    source, views = data.open_source("digits"), Views(AUGMENTATIONS["grayscale"])
    extraction.extract(None, source, views, np.arange(64), batch_size=32)
    tracemalloc.start()
    found = extraction.extract(None, source, views, batch_size=32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.shape == (rows, width) and found.dtype == np.float32
    assert (found[:-29] == 32).all() and (found[-29:] == 29).all()
    assert peak < 1.1 * found.nbytes, peak / found.nbytes


class Team:
    """One of several workers, each of them a thread."""

    def __init__(self, index, count, barrier, table):
        self.index, self.count, self.barrier, self.table = index, count, barrier, table

    def shard(self, ids):
        return np.array_split(ids, self.count)[self.index]

    def all_gather(self, rows):
        self.table[self.index] = rows
        self.barrier.wait(20)
        found = np.concatenate([self.table[i] for i in range(self.count)])
        self.barrier.wait(20)
        return found


@pytest.mark.parametrize("bank", [1, 2, 7, 23, 31])
def test_workers_share_the_extraction_of_a_bank_and_all_have_it(monkeypatch, bank):
    monkeypatch.setattr(knn_monitor, "GATHERED_IMAGES", 4)
    ids, count = np.arange(100, 100 + bank)[::-1], 3
    barrier, table, found, asked = threading.Barrier(count), {}, {}, []

    def encode(source, wanted):
        assert len(wanted) <= 4
        asked.extend(wanted)
        return np.stack([np.float32(wanted), -np.float32(wanted)], axis=1)

    def work(index):
        judge = knn_monitor.Monitor(None, ids, None, ids, None)
        found[index] = judge._bank_features(encode, ids, Team(index, count, barrier, table))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    expected = np.stack([ids, -ids], axis=1)
    for index in range(count):
        np.testing.assert_array_equal(found[index], expected)
    assert set(asked) == set(ids)
