"""What the closed loop is judged by, on figures worked out by hand."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..",
                                "benchmarks", "closed_loop"))
import measures  # noqa: E402  (its folder is not a package)


def row(predicted, times, model="m", low=0.0, high=9.0, memory=0.0, topology="1x2"):
    return {"topology": topology, "model": model, "workload": "w", "pins": [], "folder": "f",
            "predicted_s": predicted, "times": times, "measured_s": measures.median(times),
            "measured_min_s": min(times), "p10_s": low, "p90_s": high, "memory_error": memory,
            "overlap_predicted_s": 0.0, "overlap_measured_s": 0.0, "waiting_predicted_s": 0.0,
            "waiting_measured_s": 0.0, "parity": True}


class Measures(unittest.TestCase):
    def test_median(self):
        self.assertEqual(measures.median([3, 1, 2]), 2)
        self.assertEqual(measures.median([4, 1, 3, 2]), 2.5)

    def test_noise_is_what_a_run_misses_the_others_by(self):
        # Against the median of the two others: 1 vs 1.05, 1.1 vs 1, 1 vs 1.05.
        expected = (0.05 / 1.05 + 0.1 + 0.05 / 1.05) / 3
        self.assertAlmostEqual(measures.noise_of([row(1, [1, 1.1, 1])]), expected)

    def test_tau_counts_pairs_that_are_apart(self):
        group = [row(1, [1]), row(3, [2]), row(2, [3])]
        # Pairs: (1, 2) and (1, 3) as predicted, (2, 3) the other way round.
        self.assertAlmostEqual(measures.tau_of([group], 0.01)[0], 1 / 3)
        self.assertEqual(measures.tau_of([group], 0.01)[1], 3)
        # 2 and 3 are 50 % apart: with a noise of 30 % that pair says nothing.
        tau, pairs = measures.tau_of([group], 0.3)
        self.assertEqual((tau, pairs), (1, 2))
        self.assertEqual(measures.tau_of([[row(1, [1])]], 0.01), (None, 0))

    def test_regret_is_of_the_plan_that_was_chosen(self):
        self.assertAlmostEqual(measures.regret_of([row(1, [2.0]), row(2, [1.6])]), 0.25)
        self.assertEqual(measures.regret_of([row(1, [1.0]), row(2, [1.6])]), 0)

    def test_summary(self):
        rows = [row(1.1, [1, 1], low=0.9, high=1.2, memory=0.01),
                row(1.9, [2, 2], low=2.05, high=2.2, memory=-0.03),
                row(3.0, [2.5, 2.5], model="other"),
                row(2.9, [2.0, 2.0], model="other")]
        summary = measures.summary_of(rows)
        errors = [0.1, -0.05, 0.2, 0.45]
        self.assertAlmostEqual(summary["mape"], sum(abs(e) for e in errors) / 4)
        self.assertAlmostEqual(summary["bias"], sum(errors) / 4)
        self.assertEqual(summary["coverage"], 0.75)
        self.assertAlmostEqual(summary["memory_mape"], 0.01)
        self.assertEqual((summary["mean_regret"], summary["worst_regret"]), (0, 0))
        self.assertEqual(summary["tau"], 1)

    def test_of_one_plan_there_is_no_choice(self):
        summary = measures.summary_of([row(1.1, [1, 1])])
        self.assertAlmostEqual(summary["mape"], 0.1)
        self.assertEqual((summary["mean_regret"], summary["worst_regret"], summary["tau"]),
                         (None, None, None))

    def test_parts_are_by_topology(self):
        rows = [row(1, [1, 1]), row(2, [2, 2]), row(1, [1, 1], topology="2x2@1mbit"),
                row(3, [2, 2], topology="2x2@1mbit")]
        result = measures.result_of(rows, [{"topology": "1x2"}], "/", 2)
        self.assertEqual(result["parts"]["topologies_of_the_calibration"]["mape"], 0)
        self.assertEqual(result["parts"]["other_topologies"]["mape"], 0.25)
        self.assertEqual([run["topology_was_calibrated_on"] for run in result["runs"]],
                         [True, True, False, False])
        self.assertEqual(result["limits"]["mape"], 0.08)


if __name__ == "__main__":
    unittest.main()
