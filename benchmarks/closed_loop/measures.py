"""What the closed loop is judged by, from predicted and measured step times."""

import itertools
import os


def median(values):
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def noise_of(rows):
    """The error that one run itself has as a prediction of the median of the others."""
    errors = []
    for row in rows:
        for i, seconds in enumerate(row["times"]):
            others = row["times"][:i] + row["times"][i + 1:]
            errors.append(abs(seconds / median(others) - 1))
    return mean(errors)


def kendall_tau(pairs):
    """Of (predicted a, b, measured a, b): concordant less discordant, over all."""
    signs = [1 if (pa - pb) * (ma - mb) > 0 else -1 for pa, pb, ma, mb in pairs]
    return mean(signs) if signs else None


def tau_of(groups, noise):
    """Over pairs of a group whose measured times differ by more than twice the noise."""
    pairs = []
    for rows in groups:
        for a, b in itertools.combinations(rows, 2):
            apart = abs(a["measured_s"] - b["measured_s"]) / min(a["measured_s"], b["measured_s"])
            if apart > 2 * noise:
                pairs.append((a["predicted_s"], b["predicted_s"], a["measured_s"],
                              b["measured_s"]))
    return kendall_tau(pairs), len(pairs)


def groups_of(rows):
    """Plans that one choice is made among: same topology, model and workload."""
    groups = {}
    for row in rows:
        groups.setdefault((row["topology"], row["model"], row["workload"]), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def regret_of(group):
    """What the plan that was predicted fastest loses against the one that was."""
    chosen = min(group, key=lambda row: row["predicted_s"])
    return chosen["measured_s"] / min(row["measured_s"] for row in group) - 1


def limits_of(noise):
    return {"mape": max(0.08, 1.5 * noise), "bias": 0.03, "tau": 0.9, "mean_regret": 0.02,
            "worst_regret": 0.08, "memory_mape": 0.02}


def summary_of(rows):
    errors = [row["predicted_s"] / row["measured_s"] - 1 for row in rows]
    noise = noise_of(rows) if len(rows[0]["times"]) > 1 else 0.0
    groups = groups_of(rows)
    tau, pairs = tau_of(groups, noise)
    tau_all, _ = tau_of([rows], noise)
    regrets = [regret_of(group) for group in groups]
    return {"mape": mean(abs(e) for e in errors), "bias": mean(errors), "tau": tau,
            "mean_regret": mean(regrets) if regrets else None,
            "worst_regret": max(regrets, default=None),
            "coverage": mean(1.0 if row["p10_s"] <= row["measured_s"] <= row["p90_s"] else 0.0
                             for row in rows),
            "memory_mape": mean(abs(row["memory_error"]) for row in rows),
            "noise_floor": noise, "tau_pairs": pairs, "tau_over_all": tau_all,
            "parity": all(row["parity"] for row in rows), "plans": len(rows)}


def load_spreads(rows, ep):
    """Of v_binding's routing records, each by rank, step and variable: the coefficient of variation
    of the experts' rows. A record is: rows, received and sent by peer (2 x ep), rows by expert."""
    records = {}
    for row in rows:
        key = (row["rank"] if ep == 1 else 0, row["step"], row["variable"])
        records.setdefault(key, {}).setdefault(row["rank"], []).append(row["value"])
    spreads = []
    for ranks in records.values():
        loads = [value for record in ranks.values() for value in record[1 + 2 * ep:]]
        middle = mean(loads)
        if middle > 0:
            spreads.append(mean((value - middle) ** 2 for value in loads) ** 0.5 / middle)
    return spreads


def name_of(row):
    words = [row["model"], row["workload"]] + row["pins"]
    return " ".join(words)


def result_of(rows, calibration, out, repeats):
    known = {row["topology"] for row in calibration}
    runs = []
    for row in rows:
        folder = os.path.relpath(row["folder"], out)
        runs.append({
            "plan": name_of(row), "topology": row["topology"],
            "topology_was_calibrated_on": row["topology"] in known,
            "sim_db": os.path.join(folder, "sim.db"),
            "run_db": os.path.join(folder, f"run-{repeats - 1}.db"),
            "predicted_s": row["predicted_s"], "measured_s": row["measured_s"],
            "measured_min_s": row["measured_min_s"], "times_s": row["times"],
            "p10_s": row["p10_s"], "p90_s": row["p90_s"], "memory_error": row["memory_error"],
            "overlap_predicted_s": row["overlap_predicted_s"],
            "overlap_measured_s": row["overlap_measured_s"],
            "waiting_predicted_s": row["waiting_predicted_s"],
            "waiting_measured_s": row["waiting_measured_s"], "parity": row["parity"]})
    summary = summary_of(rows)
    parts = {"topologies_of_the_calibration": [r for r in rows if r["topology"] in known],
             "other_topologies": [r for r in rows if r["topology"] not in known]}
    return {"schema_version": 1, "summary": summary, "limits": limits_of(summary["noise_floor"]),
            "parts": {name: summary_of(part) for name, part in parts.items()
                      if len(groups_of(part)) > 0},
            "runs": runs}


def table_of(result):
    # Each time as predicted, then as measured; a step is compute + communication - overlap + waiting.
    lines = [f"{'step':>15} {'error':>8} {'overlap':>15} {'waiting':>15}  plan"]
    for run in result["runs"]:
        error = run["predicted_s"] / run["measured_s"] - 1
        times = [f"{run[name + 'predicted_s']:6.3f}s {run[name + 'measured_s']:6.3f}s"
                 for name in ("", "overlap_", "waiting_")]
        lines.append(f"{times[0]} {100 * error:+7.1f}% {times[1]} {times[2]}  "
                     f"{run['topology']}: {run['plan']}")
    for name, part in [("all", result["summary"])] + list(result["parts"].items()):
        lines.append(name + ": " + ", ".join(
            f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}"
            for key, value in part.items()))
    return "\n".join(lines)
