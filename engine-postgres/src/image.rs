//! The statement for a group of row images, with its parameters.

use oncekey::fleet::store::{RowImage, RowState};

use crate::column::{self, Images};
use crate::rows::{Params, signed};
use crate::statements::{Shapes, Sql};

/// The statement for a group of any changes, and its parameters behind those of the gate.
pub(crate) fn full<'s, 'a>(shapes: &'s Shapes, images: &[&'a RowImage]) -> (&'s Sql, Params<'a>) {
    let claims = images.iter().filter(|image| image.expected == 0).count();
    let many = images.len() > 1;
    (shapes.of(claims, images.len() - claims), Images { images, many }.params(column::ANY))
}

/// The same for a group of nothing but new claims, and ends of claims. It carries out those that its
/// instance holds.
pub(crate) fn lean<'s, 'a>(
    shapes: &'s Shapes,
    images: &[&'a RowImage],
) -> Option<(&'s Sql, Params<'a>)> {
    let writer = images.first()?.writer;
    let (mut claims, mut ends) = (Vec::new(), Vec::new());
    for &image in images {
        if image.writer != writer {
            return None;
        } else if is_new_claim(image) {
            claims.push(image);
        } else if is_end(image) {
            ends.push(image);
        } else {
            return None;
        }
    }
    // All processes lock new keys in one order.
    claims.sort_unstable_by_key(|image| image.hash);
    let many = images.len() > 1;
    let mut params: Params<'_> = vec![Box::new(signed(writer))];
    if !claims.is_empty() {
        params.extend(Images { images: &claims, many }.params(column::CLAIM));
    }
    if !ends.is_empty() {
        params.extend(Images { images: &ends, many }.params(column::END));
    }
    Some((shapes.of(claims.len(), ends.len()), params))
}

/// Whether the image is that of the first claim of a key without a row, as the statements for new
/// claims write it.
pub(crate) fn is_new_claim(image: &RowImage) -> bool {
    image.expected == 0
        && image.state == RowState::InFlight
        && image.grants
        && !image.resolves
        && image.attempt == 1
        && image.fingerprint.is_some()
        && (image.since, image.expires_in) == (None, None)
        && (&image.checkpoint, &image.body) == (&None, &None)
}

/// Whether the image ends a claim that did not count as an orphan, and leaves the rest of the row as
/// it is.
fn is_end(image: &RowImage) -> bool {
    image.expected > 0
        && matches!(image.state, RowState::Free | RowState::Completed | RowState::WithoutResponse)
        && !image.grants
        && !image.resolves
        && (image.since, image.deadline_in) == (None, None)
        && image.expires_in.is_some()
        && (&image.fingerprint, &image.checkpoint) == (&None, &None)
}
