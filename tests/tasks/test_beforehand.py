"""What was found before any edit is said in sentences."""

from pathlib import Path

from storage.sql import query
from storage.store import Store
from tasks.reports.beforehand import KNOWLEDGE, LAYERS, before_any_edit, knowledge_sentences, layer_sentences
from tasks.reports.report import write_report
from tests.tasks.support import all_stages, plan
from tests.tasks.test_knowledge import ask, hand_made, planned


def test_what_a_model_knew_is_counted(tmp_path: Path) -> None:
    ask(planned(tmp_path))
    store = Store(tmp_path / "store")
    (said,) = knowledge_sentences(query(store, KNOWLEDGE).to_pylist())
    n = len(hand_made())
    assert said == (
        f"Of {n} facts factworld-tiny says the first token of {n // 2}, all tokens of {n // 2}, and the answer somewhere in "
        f"free text of {n // 2} (view knowledge_summary)."
    )
    assert said in Path(write_report(store, None).location).read_text()


def test_the_relations_that_are_known_best_are_named() -> None:
    row = {"model": "m", "n_facts": 60, "first_token": 31, "all_tokens": 30, "free_text": 40, "n_relations": 3}
    best = [{"relation": "capital", "rate": 0.9}, {"relation": "sport", "rate": 0.5}, {"relation": "rare", "rate": 1.0}]
    (said,) = knowledge_sentences([row | {"best": best}])
    assert "; best of capital (0.90), sport (0.50), rare (1.00) (view" in said


def test_a_search_names_its_best_layer_and_what_it_is_not_told_apart_from(tmp_path: Path) -> None:
    made = plan(tmp_path, locate={"search": {"editor": "ft_c", "edits": 3, "layers": [0, 1, 2]}})
    all_stages(made)
    store = Store(made.store)
    (row,) = query(store, LAYERS).to_pylist()
    scores = {each["layer"]: each["score"] for each in query(store, "FROM layer_summary").to_pylist()}
    best = max(sorted(scores), key=lambda layer: scores[layer])
    assert (row["layer"], row["score"], row["n_facts"]) == (best, scores[best], 3)
    pairs = query(store, "FROM layer_comparisons WHERE metric = 'score' AND verdict = 'not told apart'").to_pylist()
    alike = {
        each[side]
        for each in pairs
        for side in ("layer", "other_layer")
        if best in (each["layer"], each["other_layer"])
    }
    assert set(row["alike"] or ()) == alike - {best}
    (said,) = layer_sentences([row])
    assert said.startswith(f"ft_c on factworld-tiny: layer {best} ({scores[best]:.3f}, 95 % ") and "3 facts" in said
    assert [question for question, _ in before_any_edit([], [row])] == [
        "Which layer has the highest S, of single edits?"
    ]
