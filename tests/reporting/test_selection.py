"""Two selections of trials are paired by seed, and share all that not both of them name."""

import re

import pandas as pd
import pytest
from trial_rows import finished_row, searched_row, table, with_accuracy

from mint.errors import InputError
from mint.reporting.selection import compare, list_trials


@pytest.fixture(scope="module")
def trials() -> pd.DataFrame:
    """MINT, one point above random blocks, at two numbers of groups and shares."""
    return table(
        *(
            with_accuracy(
                finished_row(criterion=name, groups=groups, fraction=fraction, seed=seed),
                90 + seed + (name == "mint") + groups / 10,
            )
            for name in ("mint", "random")
            for groups in (5, 20)
            for fraction in (0.8, 0.9)
            for seed in (0, 1, 2)
        ),
        *(
            searched_row("digits_mlp", share=90 + groups / 10, groups=groups, seed=seed)
            for groups in (5, 20)
            for seed in (0, 1, 2)
        ),
    )


def test_criteria_are_compared_at_all_that_they_share(trials: pd.DataFrame) -> None:
    lines = compare(trials, "mint,groups=5", "random")
    rows = [line for line in lines if re.match(r"\|\s*0\.", line)]
    assert [re.findall(r"0\.\d|[+-]\d\.\d\d", row)[:2] for row in rows] == [
        *(["0.8", "+1.00"], ["0.9", "+1.00"]),
    ]
    text = "\n".join(lines)
    assert "experiment digits_mlp, protocol full retraining 20 epochs, retraining full" in text
    assert "groups 5" in text
    assert "Mean difference over all rows: accuracy +1.00 [+0.98, +1.02]" in text


def test_settings_are_compared_under_both_readings(trials: pd.DataFrame) -> None:
    text = "\n".join(compare(trials, "groups=20,criterion=mint", "groups=5"))
    assert "share +1.50" in text
    assert "accuracy +1.50 [+1.48, +1.52]" in text
    assert "random" not in text


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        ("mnt", "random", "first mnt: there is no criterion mnt; did you mean mint"),
        ("mint", "group=5", "second group=5: there is no column group; did you mean groups"),
        ("mint", "groups=7", "second groups=7: no trial has groups 7; known are 20, 5"),
        ("mint", "mint", "no trial of mint and one of mint share the seed and everything else"),
        ("taylor", "mint", "no trial has criterion taylor; known are mint, random"),
    ],
)
def test_what_is_not_there_is_named(
    trials: pd.DataFrame, first: str, second: str, complaint: str
) -> None:
    with pytest.raises(InputError) as error:
        compare(trials, first, second)
    assert complaint in str(error.value)


def test_a_list_has_the_columns_of_the_pages_and_is_sorted(trials: pd.DataFrame) -> None:
    lines = list_trials(trials, "mint,fraction=0.9", "accuracy")
    header, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[:-2]]
    assert header == ["Groups", "Performance", "Drop", "Seed", "Trial"]
    expected = sorted(
        ((91 + seed + groups / 10, groups, seed) for groups in (5, 20) for seed in (0, 1, 2)),
        reverse=True,
    )
    assert [(float(row[1]), int(row[0]), int(row[3])) for row in rows] == expected
    keys = trials.set_index("key")
    assert all(keys.loc[row[-1], "criterion"] == "mint" for row in rows)
    assert "6 trials. Shared: Experiment digits_mlp; " in lines[-1]
    assert "Criterion mint" in lines[-1]
    everything = list_trials(trials, "", "share_at_margin")
    assert everything[-1].startswith(f"{len(trials)} trials.")
    assert "92.00" in everything[2]
    assert "not run" in everything[-3]
    with pytest.raises(InputError, match=r"sort accurcy: .*did you mean accuracy"):
        list_trials(trials, "", "accurcy")


def test_protocols_are_selected_by_their_names_with_commas() -> None:
    rows = [with_accuracy(finished_row(fraction=0.9, seed=seed), 90 + seed) for seed in (0, 1, 2)]
    connected = [
        with_accuracy(row, 92 + row["seed"])
        | {"protocol": "0" * 8, "key": f"k{row['seed']}", "protocol_name": "a, keep connected"}
        for row in rows
    ]
    selections = "mint,protocol=a, keep connected,groups=20", "protocol=full retraining 20 epochs"
    assert "accuracy +2.00" in compare(table(*rows, *connected), *selections)[-1]
