//! The bytes of one file as shared copy-on-write pages: a copy of a file costs one pointer per 256
//! KiB, and holes cost nothing.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

pub(super) const PAGE: usize = 4096;
pub(super) type Page = Arc<[u8; PAGE]>;

const PAGES_PER_CHUNK: usize = 64;
static ZERO: LazyLock<Page> = LazyLock::new(|| Arc::new([0; PAGE]));

/// A hole is `None`. A page written with zeros is the shared [`ZERO`], since it takes space on the
/// device and a hole does not.
#[derive(Clone, Debug)]
struct Chunk([Option<Page>; PAGES_PER_CHUNK]);

/// The bytes of a file. The last page holds zeros after `len`.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    len: u64,
    allocated: u64,
    chunks: Vec<Option<Arc<Chunk>>>,
}

impl Contents {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many pages take space on the device.
    pub(super) fn allocated_pages(&self) -> u64 {
        self.allocated
    }

    pub(super) fn page(&self, index: usize) -> Option<&Page> {
        self.chunks.get(index / PAGES_PER_CHUNK)?.as_ref()?.0[index % PAGES_PER_CHUNK].as_ref()
    }

    /// Fills `buffer` from `offset`, with zeros where there is a hole.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) {
        for span in spans(offset..offset + buffer.len() as u64) {
            let part = &mut buffer[span.done..span.done + span.within.len()];
            match self.page(span.page) {
                Some(page) => part.copy_from_slice(&page[span.within]),
                None => part.fill(0),
            }
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        for span in spans(offset..end) {
            let part = &bytes[span.done..span.done + span.within.len()];
            match <&[u8; PAGE]>::try_from(part) {
                Ok(whole) if whole != &**ZERO => self.set_page(span.page, Arc::new(*whole)),
                Ok(_) => self.set_page(span.page, Arc::clone(&ZERO)),
                Err(_) => self.write_within(span.page, span.within, part),
            }
        }
        self.len = self.len.max(end);
    }

    /// The pages that hold `range`, for [`put`](Self::put).
    pub(super) fn pages(&self, range: Range<u64>) -> Vec<Page> {
        spans(range).map(|span| Arc::clone(self.page(span.page).unwrap_or(&ZERO))).collect()
    }

    /// Copies `range` out of `pages`, the first of which holds the byte `from`. Pages covered whole
    /// are shared.
    pub(super) fn put(&mut self, range: Range<u64>, from: u64, pages: &[Page]) {
        let first = from as usize / PAGE;
        let end = range.end;
        for span in spans(range) {
            let source = &pages[span.page - first];
            if span.within.len() == PAGE {
                self.set_page(span.page, Arc::clone(source));
            } else {
                self.write_within(span.page, span.within.clone(), &source[span.within]);
            }
        }
        self.len = self.len.max(end);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.cut(len);
        }
        self.len = len;
    }

    /// Adds the addresses of this file's chunks and pages.
    #[cfg(test)]
    pub(super) fn allocations(
        &self,
        chunks: &mut std::collections::HashSet<usize>,
        pages: &mut std::collections::HashSet<usize>,
    ) {
        for chunk in self.chunks.iter().flatten() {
            if chunks.insert(Arc::as_ptr(chunk).addr()) {
                pages.extend(chunk.0.iter().flatten().map(|page| Arc::as_ptr(page).addr()));
            }
        }
    }

    fn cut(&mut self, len: u64) {
        let keep = len.div_ceil(PAGE as u64) as usize;
        let keep_chunks = keep.div_ceil(PAGES_PER_CHUNK);
        if keep_chunks < self.chunks.len() {
            for chunk in self.chunks.drain(keep_chunks..).flatten() {
                self.allocated -= chunk.0.iter().flatten().count() as u64;
            }
        }
        for index in keep..keep_chunks * PAGES_PER_CHUNK {
            if self.page(index).is_some() {
                *self.slot(index) = None;
                self.allocated -= 1;
            }
        }
        let within = len as usize % PAGE;
        if within > 0 && self.page(keep - 1).is_some() {
            self.write_within(keep - 1, within..PAGE, &ZERO[within..]);
        }
    }

    fn write_within(&mut self, index: usize, within: Range<usize>, part: &[u8]) {
        let page = Arc::clone(self.page(index).unwrap_or(&ZERO));
        if page[within.clone()] == *part {
            return self.set_page(index, page);
        }
        drop(page);
        if self.page(index).is_none() {
            self.set_page(index, Arc::clone(&ZERO));
        }
        let page = self.slot(index).get_or_insert_with(|| Arc::clone(&ZERO));
        Arc::make_mut(page)[within].copy_from_slice(part);
    }

    fn set_page(&mut self, index: usize, page: Page) {
        if self.slot(index).replace(page).is_none() {
            self.allocated += 1;
        }
    }

    fn slot(&mut self, index: usize) -> &mut Option<Page> {
        let chunk = index / PAGES_PER_CHUNK;
        if chunk >= self.chunks.len() {
            self.chunks.resize(chunk + 1, None);
        }
        let chunk = self.chunks[chunk]
            .get_or_insert_with(|| Arc::new(Chunk([const { None }; PAGES_PER_CHUNK])));
        &mut Arc::make_mut(chunk).0[index % PAGES_PER_CHUNK]
    }
}

/// The part of a byte range that lies in one page.
struct Span {
    page: usize,
    within: Range<usize>,
    /// How many bytes of the range come before this part.
    done: usize,
}

fn spans(range: Range<u64>) -> impl Iterator<Item = Span> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let start = (at % PAGE as u64) as usize;
        let len = (PAGE - start).min((range.end - at) as usize);
        let done = (at - range.start) as usize;
        let span = Span { page: (at / PAGE as u64) as usize, within: start..start + len, done };
        at += len as u64;
        Some(span)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(contents: &Contents) -> Vec<u8> {
        let mut bytes = vec![0xee; contents.len() as usize];
        contents.read(0, &mut bytes);
        bytes
    }

    #[test]
    fn behaves_like_a_vec() {
        let mut rng = oorandom::Rand64::new(7);
        let (mut contents, mut model) = (Contents::default(), Vec::new());
        for _ in 0..3000 {
            let offset = rng.rand_range(0..600_000);
            if rng.rand_range(0..10) == 0 {
                contents.set_len(offset);
                model.resize(offset as usize, 0);
            } else {
                let len = rng.rand_range(1..12_000) as usize;
                let value = rng.rand_range(0..4) as u8;
                let end = offset as usize + len;
                model.resize(model.len().max(end), 0);
                model[offset as usize..end].fill(value);
                let mut source = Contents::default();
                source.write(offset, &vec![value; len]);
                if value.is_multiple_of(2) {
                    contents.write(offset, &vec![value; len]);
                } else {
                    let range = offset..end as u64;
                    contents.put(range.clone(), offset, &source.pages(range));
                }
            }
            let counted = (0..200).filter(|index| contents.page(*index).is_some()).count();
            assert_eq!(contents.allocated_pages(), counted as u64);
        }
        assert!(bytes(&contents) == model);
    }

    #[test]
    fn zeros_take_space_but_no_memory_and_holes_take_neither() {
        let mut contents = Contents::default();
        contents.set_len(1 << 30);
        assert_eq!(contents.allocated_pages(), 0);
        contents.write(0, &vec![0; 32 << 20]);
        assert_eq!(contents.allocated_pages(), 8192);
        assert!((0..8192).all(|index| Arc::ptr_eq(contents.page(index).unwrap(), &ZERO)));
    }

    #[test]
    fn a_copy_shares_what_neither_side_writes() {
        let mut contents = Contents::default();
        contents.write(0, &vec![1; 1 << 20]);
        let mut copy = contents.clone();
        copy.write(5000, &[2]);
        let shared = (0..256)
            .filter(|index| Arc::ptr_eq(contents.page(*index).unwrap(), copy.page(*index).unwrap()))
            .count();
        assert_eq!(shared, 255);
        assert_eq!(bytes(&contents)[5000], 1);
        assert_eq!(bytes(&copy)[5000], 2);
    }
}
