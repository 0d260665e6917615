//! The layout of everything that crosses the boundary, and the constants. Data alone, no behaviour.

pub(crate) mod answer;
pub(crate) mod close_report;
pub(crate) mod control_options;
pub(crate) mod options;
pub(crate) mod plain;
pub(crate) mod request;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod submission;
pub(crate) mod time;
pub(crate) mod types;

pub use answer::*;
pub use close_report::*;
pub use control_options::*;
pub use options::*;
pub use request::*;
pub use stats::*;
pub use status::*;
pub use submission::*;
pub use types::*;
