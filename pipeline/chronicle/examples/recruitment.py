"""Recruitment analytics on the demo's source `hiring`: where an application stands, how long a hire took, what it cost.

A change has its row before and after, so what follows from these is exact: stage, direction, days from application to
hire, what a campaign spent by this change. What needs other rows, as cost per hire (spending and hires of a whole
campaign), is asked of the trail: `COST_PER_HIRE`. Needed in clear: applications.stage, .rating, .applied_at,
.campaign_id; campaigns.id, .budget, .status. Where the policy hides one of them, what follows from it is null.
"""

from __future__ import annotations

import polars as pl

from chronicle.processors import Counter, Histogram, label, processor, read

APPLICATIONS = "hiring.hiring.applications"
CAMPAIGNS = "hiring.hiring.campaigns"
FUNNEL = {"received": 1, "interview": 2, "offer": 3, "hired": 4}
"""Stage → position; `rejected` has none."""
RATING_MIN, RATING_MAX = -5, 5
_DAY_S = 86_400
_STAGE_SHARE, _RATING_SHARE = 0.4, 0.6

stages_total = Counter("hiring_applications", "Applications by the stage they came to.", ["stage"])
days_to_hire = Histogram(
    "hiring_days_to_hire", "Days from application to hire.", buckets=(1, 3, 7, 14, 21, 30, 45, 60, 90, 180, 365)
)
spent_total = Counter("hiring_spend", "What campaigns spent, in their currency.")

_FUNNEL = {
    "stage": pl.String,
    "previous_stage": pl.String,
    "funnel_position": pl.Int64,
    "moved": pl.Int64,
    "time_to_hire_days": pl.Float64,
    "campaign_id": pl.Int64,
    "campaign": pl.String,
    "quality_score": pl.Float64,
}
_SPENDING = {"campaign_id": pl.Int64(), "spent": pl.Decimal(12, 2), "opened": pl.Boolean(), "closed": pl.Boolean()}


@processor(tables=APPLICATIONS, extra=_FUNNEL, metrics=[stages_total, days_to_hire])
def funnel(changes: pl.DataFrame) -> pl.DataFrame:
    """Where an application stands in the funnel, and what a hire took.

    `moved` is how many positions this change moved it (negative: back); `time_to_hire_days` stands on the change that
    hired; `campaign` is the campaign's name, where the policy joins it as `into = "campaign"`; `quality_score` is 0 to 100:
    60 % the rating (-5 to 5), 40 % the position. Labels: `hired`, `rejected`.
    """
    rows = read(
        changes,
        before={"stage": pl.String, "campaign_id": pl.Int64, "rating": pl.Int64},
        after={"stage": pl.String, "campaign_id": pl.Int64, "rating": pl.Int64, "applied_at": pl.Datetime("us")},
    )
    rows = rows.with_columns(
        pl.coalesce("after.stage", "before.stage").alias("stage"),
        pl.when(pl.col("operation") == "update").then("before.stage").alias("previous_stage"),
        pl.coalesce("after.campaign_id", "before.campaign_id").alias("campaign_id"),
        pl.col("enriched").str.json_path_match("$.campaign.name").alias("campaign"),
    ).with_columns(_position("stage").alias("funnel_position"), _came_to("hired").alias("_hired"))
    took = pl.col("committed_at").dt.replace_time_zone(None) - pl.col("after.applied_at")
    rows = rows.with_columns(
        (pl.col("funnel_position") - _position("previous_stage")).alias("moved"),
        pl.when("_hired").then(took.dt.total_seconds() / _DAY_S).round(2).alias("time_to_hire_days"),
        _quality().alias("quality_score"),
    )
    stages_total.count(rows.filter(_came_to(pl.col("stage"))))
    days_to_hire.observe(rows["time_to_hire_days"])
    return rows.with_columns(label("hired", pl.col("_hired"))).with_columns(label("rejected", _came_to("rejected")))


def _position(stage: str) -> pl.Expr:
    return pl.col(stage).replace_strict(FUNNEL, default=None, return_dtype=pl.Int64)


def _came_to(stage: str | pl.Expr) -> pl.Expr:
    """Whether this change brought the application to a stage; what a snapshot finds was there before."""
    wanted = pl.lit(stage) if isinstance(stage, str) else stage
    moved = pl.col("before_known") & pl.col("before.stage").ne_missing(pl.col("after.stage"))
    return ((pl.col("after.stage") == wanted) & pl.col("operation").is_in(["create", "update"]) & moved).fill_null(False)


def _quality() -> pl.Expr:
    """Null without a rating."""
    rated = (pl.coalesce("after.rating", "before.rating").clip(RATING_MIN, RATING_MAX) - RATING_MIN) / (RATING_MAX - RATING_MIN)
    progress = pl.col("funnel_position").fill_null(0) / max(FUNNEL.values())
    return (100 * (_RATING_SHARE * rated + _STAGE_SHARE * progress)).round(1)


@processor(tables=CAMPAIGNS, extra=_SPENDING, metrics=[spent_total])
def spending(changes: pl.DataFrame) -> pl.DataFrame:
    """What a campaign spent: by how much this change lowered its budget, null where it did not; and whether it opened or
    closed it."""
    rows = read(
        changes,
        before={"id": pl.Int64, "budget": pl.Decimal(12, 2), "status": pl.String},
        after={"id": pl.Int64, "budget": pl.Decimal(12, 2), "status": pl.String},
    )
    lowered = pl.col("before.budget") - pl.col("after.budget")
    rows = rows.with_columns(
        pl.coalesce("after.id", "before.id").alias("campaign_id"),
        pl.when(lowered > 0).then(lowered).alias("spent"),
        _became("open").alias("opened"),
        _became("closed").alias("closed"),
    )
    spent_total.inc(n=float(rows["spent"].cast(pl.Float64).sum()))
    return rows


def _became(status: str) -> pl.Expr:
    changed = pl.col("before_known") & pl.col("before.status").ne_missing(pl.col("after.status"))
    return ((pl.col("after.status") == status) & changed & (pl.col("operation") != "snapshot")).fill_null(False)


COST_PER_HIRE = """
SELECT campaign_id, sum(spent) AS spent, countIf(hired) AS hires, if(hires = 0, NULL, toFloat64(spent) / hires) AS cost_per_hire
FROM
(
    SELECT
        JSONExtractInt(assumeNotNull(extra), 'campaign_id') AS campaign_id,
        toDecimal64OrZero(JSONExtractString(assumeNotNull(extra), 'spent'), 2) AS spent,
        has(labels, 'hired') AS hired
    FROM chronicle.changes FINAL
    WHERE source = 'hiring' AND `table` IN ('campaigns', 'applications') AND extra IS NOT NULL
)
GROUP BY campaign_id
HAVING campaign_id != 0
ORDER BY campaign_id
"""
"""For `chronicle sql`: what each campaign spent for each hire, over all of the trail."""
