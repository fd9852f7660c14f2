//! What the tests of several modules share.

use proptest::prelude::ProptestConfig;

/// How many cases of a property are tried: `usual`, or what `PROPTEST_CASES` asks for.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(usual),
    }
}
