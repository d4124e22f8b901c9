"""One fixed Arrow schema per table.  ``run_id`` is the only hive key; missing values are NULL, never NaN.

Rounds count from 0.  ``scored_at`` is the last round applied when something was scored (-1: the unedited model), and
``edits_so_far`` the number of requests applied by then.
"""

import pyarrow as pa

SCHEMA_VERSION = 1

_STAMP = [pa.field("unit_id", pa.string(), nullable=False), pa.field("attempt", pa.string(), nullable=False)]

_text, _int, _float, _bool = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_texts, _ints, _floats = pa.list_(pa.string()), pa.list_(pa.int32()), pa.list_(pa.float64())


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([*_STAMP, *(pa.field(name, kind) for name, kind in columns.items())])


SCHEMAS: dict[str, pa.Schema] = {
    "runs": _schema(
        baseline_run_id=_text,
        experiment=_text,
        model=_text,
        model_digest=_text,
        model_revision=_text,
        dtype=_text,
        facts=_text,
        facts_run_id=_text,
        editor=_text,
        variant=_text,
        hparams=_text,
        hparams_digest=_text,
        algorithm_version=_int,
        layers=_ints,
        batch_size=_int,
        mode=_text,
        sample=_int,
        seed=_int,
        protocol=_text,
        contexts=_texts,
        moments_digest=_text,
        threads=_int,
        tokens_per_forward=_int,
        device_kind=_text,
        versions=_text,
        spec=_text,
    ),
    "facts": _schema(
        fact_id=_text,
        position=_int,
        relation=_text,
        subject=_text,
        template=_text,
        prompt=_text,
        target_new=_text,
        target_true=_text,
    ),
    "probes": _schema(
        fact_id=_text, probe_id=_text, kind=_text, index=_int, prompt=_text, target_new=_text, target_true=_text
    ),
    "rounds": _schema(
        round=_int,
        edits_so_far=_int,
        parameter=_text,
        outcome=_text,
        message=_text,
        update_norm=_float,
        weight_norm=_float,
        drift=_float,
        drift_per_value=_float,
        ridge=_float,
        shortfall=_float,
        solve_error=_float,
    ),
    "edits": _schema(
        round=_int,
        position=_int,
        fact_id=_text,
        target_loss=_float,
        n_steps=_int,
        target_distance=_float,
    ),
    "edit_updates": _schema(
        round=_int,
        fact_id=_text,
        parameter=_text,
        q=_float,
        residual_norm=_float,
        predicted_disturbance=_float,
        predicted_norm=_float,
        key_asymmetry=_float,
    ),
    "ledger": _schema(
        round=_int,
        parameter=_text,
        kind=_text,
        dtype=_text,
        shape=_ints,
        right_shape=_ints,
        value=pa.large_binary(),
        right=pa.large_binary(),
    ),
    "fact_scores": _schema(
        purpose=_text,
        fact_id=_text,
        probe_id=_text,
        kind=_text,
        edited_at=_int,
        scored_at=_int,
        edits_so_far=_int,
        nll_new=_float,
        n_new=_int,
        nll_true=_float,
        n_true=_int,
        argmax_new=_ints,
        argmax_true=_ints,
        n_correct_new=_int,
        n_correct_true=_int,
        text=_text,
        same_as_base=_bool,
        is_nan=_bool,
    ),
    "benchmark_answers": _schema(
        benchmark=_text,
        example_id=_text,
        scored_at=_int,
        edits_so_far=_int,
        labels=_texts,
        gold=_text,
        predicted=_text,
        label_nlls=_floats,
        n_shots=_int,
    ),
    "traces": _schema(
        fact_id=_text,
        kind=_text,
        layer=_int,
        position=_int,
        token=_text,
        role=_text,
        probability=_float,
        low=_float,
        high=_float,
    ),
    "layer_scores": _schema(
        model=_text,
        editor=_text,
        protocol=_text,
        layer=_int,
        fact_id=_text,
        probe_id=_text,
        kind=_text,
        nll_new=_float,
        n_new=_int,
        nll_true=_float,
        n_true=_int,
        n_correct_new=_int,
        n_correct_true=_int,
        is_nan=_bool,
        error=_text,
    ),
    "logits": _schema(round=_int, edits_so_far=_int, prompt=_text, ids=_ints, logits=_floats),
    "timings": _schema(stage=_text, seconds=_float, n_items=_int, device=_text),
}

COMMITS: pa.Schema = _schema(
    schema_version=_int,
    kind=_text,
    status=_text,
    first_round=_int,
    last_round=_int,
    digest=_text,
    tables=_texts,
    files=_texts,
    file_rows=pa.list_(pa.int64()),
    file_bytes=pa.list_(pa.int64()),
    spec=_text,
    message=_text,
    host=_text,
    seconds=_float,
    finished_at=pa.timestamp("us", tz="UTC"),
)
