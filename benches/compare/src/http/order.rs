//! What the handler is asked for and what it answers: JSON both, parsed and written for each request as services do.

use oncekey_benches::side::noise;
use serde::{Deserialize, Serialize};

/// The body of every request.
pub const REQUEST: &str =
    r#"{"customerId":"c-1042","items":[{"sku":"tea","quantity":2},{"sku":"cup","quantity":1}]}"#;

/// An order to place.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    customer_id: String,
    items: Vec<Item>,
}

/// A placed order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    id: &'static str,
    customer_id: String,
    items: Vec<Item>,
    receipt: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Item {
    sku: String,
    quantity: u32,
}

impl Wanted {
    /// The order.
    pub fn order(self, receipt: String) -> Order {
        let Self { customer_id, items } = self;
        Order { id: "o-1042", customer_id, items, receipt }
    }
}

/// What makes the answer to [`REQUEST`] so many bytes long, if that is enough for the rest of it.
pub fn receipt(length: usize) -> String {
    let rest = length.saturating_sub(REST);
    noise(rest).iter().map(|byte| char::from(b'A' + byte % 26)).collect()
}

/// Bytes of an answer to [`REQUEST`] beside its receipt.
const REST: usize = REQUEST.len() + r#""id":"o-1042","receipt":"","#.len();

/// What the handler answers to [`REQUEST`].
///
/// # Errors
/// None: it is JSON.
pub fn answer(length: usize) -> oncekey_benches::Result<Vec<u8>> {
    let wanted: Wanted = serde_json::from_str(REQUEST)?;
    Ok(serde_json::to_vec(&wanted.order(receipt(length)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_asked_for() {
        assert_eq!(answer(1024).unwrap().len(), 1024);
    }
}
