"""What makes cells one training: everything but the seed, also of what they start from."""

from report_samples import add_run, learned, record, result, training_cell

from benchctl.recipe import Recipe
from benchctl.report.table import Absent, Selection, selected
from benchctl.report.trainings import Training, ending_values, names, training_values, trainings
from benchctl.spec import Cell
from benchctl.store.store import Store


def found(store: Store) -> list[Training]:
    with selected(store, Selection()) as (snapshot, cells):
        return trainings(cells, snapshot.contents())


def stored(store: Store, *cells: Cell) -> list[Training]:
    add_run(store, record("r"), cells, [learned(c, 0.5) for c in cells])
    return found(store)


def test_seeds_are_one_training_and_nothing_else_is(store: Store) -> None:
    cells = [training_cell(m, seed=s, frames=f) for m in ("moss-tiny", "vit-b") for f in (8, 4) for s in (2, 0, 1)]
    made = stored(store, *cells)
    assert [[c.seed for c in each.cells] for each in made] == [[0, 1, 2]] * 4
    assert {(each.first.method, each.first.frames) for each in made} == {(m, f) for m in ("moss-tiny", "vit-b") for f in (8, 4)}
    assert all(each.differs_in == "" for each in made)


def test_a_recipe_that_is_not_shown_tells_rows_apart(store: Store) -> None:
    made = stored(store, *(training_cell(recipe=Recipe(learning_rate=rate), seed=s) for rate in (0.1, 0.01) for s in (0, 1)))
    assert sorted(each.differs_in for each in made) == ["learning_rate=0.01", "learning_rate=0.1"]
    assert sorted(names(made)) == ["moss-tiny, learning_rate=0.01", "moss-tiny, learning_rate=0.1"]


def test_each_seed_starts_from_a_cell_of_its_own(store: Store) -> None:
    starts = [training_cell(seed=s, task="pretrain", options={"mask": m}, config={"mask": m}) for m in (0.5, 0.9) for s in (0, 1)]
    cells = [training_cell(seed=start.seed, start=f"cell:{start.id}") for start in starts]
    assert len({c.changes["start"] for c in cells}) == 4
    made = stored(store, *starts, *cells)
    assert [[c.seed for c in each.cells] for each in made] == [[0, 1], [0, 1]]
    assert sorted(each.differs_in for each in made) == ["start.mask=0.5", "start.mask=0.9"]
    assert {(each.options, training_values(each)[10]) for each in made} == {("", "pretrain on motion_shapes")}


def test_what_it_starts_from_may_be_out_of_sight(store: Store) -> None:
    (made,) = stored(store, training_cell(start="cell:0123456789abcdef"))
    assert (made.options, training_values(made)[10]) == ("", "cell:0123456789abcdef")


def test_every_seed_is_accounted_for(store: Store) -> None:
    cells = [training_cell(seed=s) for s in range(5)]
    add_run(
        store,
        record("r"),
        cells,
        [
            learned(cells[0], 0.5),
            result(cells[1], outcome="diverged", reason="a loss of NaN"),
            result(cells[2], outcome="oom", reason="no memory"),
            learned(cells[3], 0.6),
        ],
    )
    (made,) = found(store)
    assert made.ending == "2 ok, 1 diverged, 1 not run, 1 oom"
    assert [c.seed for c in made.done] == [0, 3]
    ended = ending_values(made)
    assert ended[:4] == (made.ending, "a loss of NaN; no memory", 2.5, "r")
    assert ended[4] == " ".join(c.cell_id for c in made.cells)


def test_a_training_without_a_good_end_says_how_it_ended(store: Store) -> None:
    cells = [training_cell(seed=s) for s in range(2)]
    add_run(store, record("r"), cells, [result(c, outcome="oom", reason="no memory") for c in cells])
    (made,) = found(store)
    assert (made.ending, made.missing, made.done) == ("oom", Absent("oom"), ())


def test_names_say_no_more_than_it_takes(store: Store) -> None:
    alone = training_cell("vit-b")
    several = [training_cell(frames=f, options=o, config={"orders": o}) for f, o in ((1, {"orders": []}), (8, {"orders": []}), (8, None))]
    made = stored(store, alone, *several)
    assert sorted(names(made)) == [
        "moss-tiny, orders=none, 1 frame",
        "moss-tiny, orders=none, 8 frames",
        "moss-tiny, preset, 8 frames",
        "vit-b",
    ]


def test_views_tell_names_apart(store: Store) -> None:
    made = stored(store, *(training_cell(recipe=Recipe(eval_clips=n, eval_crops=3)) for n in (1, 2)))
    assert sorted(names(made)) == ["moss-tiny, 1x3 views", "moss-tiny, 2x3 views"]


def test_profiles_are_no_trainings(scaling: Store) -> None:
    assert found(scaling) == []
