//! Checks that the value of an option is within its range.

use std::fmt::Debug;

use super::error::{Error, Result};

pub(crate) fn at_least<T: PartialOrd + Debug>(option: &str, value: T, bound: T) -> Result<()> {
    if value >= bound {
        return Ok(());
    }
    Err(Error::invalid(format!("{option} is {value:?}, at least {bound:?} is allowed")))
}

pub(crate) fn at_most<T: PartialOrd + Debug>(option: &str, value: T, bound: T) -> Result<()> {
    if value <= bound {
        return Ok(());
    }
    Err(Error::invalid(format!("{option} is {value:?}, at most {bound:?} is allowed")))
}
