"""What hosts can feed, by hand."""

import argparse

import bench_views
import host_model
import pytest

from simsiam_tf.runtime import cores


def test_efficiency_is_relative_to_the_fewest_threads():
    assert host_model.efficiencies({1: 100.0, 2: 180.0, 4: 300.0}) == {1: 1.0, 2: 0.9, 4: 0.75}
    assert host_model.efficiencies({2: 180.0, 4: 270.0}) == {2: 1.0, 4: 0.75}


def test_cores_add_up_until_a_stage_of_one_thread_is_slower():
    serial = {"joining": 1 / 5000, "reads": 1 / 8000}
    assert host_model.fed(600.0, 8, serial) == (4800.0, "cores")
    assert host_model.fed(600.0, 16, serial) == (pytest.approx(5000), "joining")
    assert host_model.fed(600.0, 16, {}) == (9600.0, "cores")


def test_tables_by_hand():
    rates = {"crops": {1: 500.0, 2: 900.0}, "views": {1: 250.0, 2: 500.0}}
    head, one, two = (line.split() for line in host_model.scaling_table(rates))
    assert head == ["threads", "crops", "efficiency", "views", "efficiency"]
    assert one == ["1", "500", "100%", "250", "100%"] and two == ["2", "900", "90%", "500", "100%"]
    core_rates, serial = {"crops": 500.0}, {"crops": {"joining": 1 / 20_000}}
    _, _, *hosts = host_model.hosts_table(core_rates, serial)
    assert [line.split() for line in hosts] == [
        ["8", "crops", "4,000", "1.6", "cores"],
        ["16", "crops", "8,000", "3.2", "cores"],
        ["64", "crops", "20,000", "8.0", "joining"],  # 32,000 by the cores
    ]


def test_numbers_of_threads_are_read_in_rising_order_and_within_the_cores(monkeypatch):
    monkeypatch.setattr(cores, "usable_cores", lambda: 16)
    assert bench_views.thread_counts("16,1,2") == [1, 2, 16] and bench_views.thread_counts("3") == [3]
    for text, problem in (("32", "from 1 to 16"), ("0,2", "from 1 to 16"), ("1;2", "such as 1,2,4")):
        with pytest.raises(argparse.ArgumentTypeError, match=problem):
            bench_views.thread_counts(text)
