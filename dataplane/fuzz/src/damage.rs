//! What happens to a medium.

use crate::script::Script;

pub(crate) const PAGE: usize = 4096;
pub(crate) const SECTOR: usize = 512;

/// One damage to `image` within `places`, which are page numbers; `earlier` are contents that the
/// same medium once had. Returns the pages that it may have changed.
pub(crate) fn damage(
    script: &mut Script<'_>,
    image: &mut [u8],
    places: &[usize],
    earlier: &[Vec<u8>],
) -> Vec<usize> {
    if places.is_empty() {
        return Vec::new();
    }
    let first = script.place(places.len());
    let count = 1 + script.below(4).min(places.len() - first - 1);
    let page = places[first];
    let run = &places[first..first + count];
    match script.below(8) {
        0 | 1 => {
            let at = page * PAGE + script.place(PAGE);
            image[at] ^= 1 << script.below(8);
            vec![page]
        }
        2 => {
            let byte = script.byte();
            for page in run {
                image[page * PAGE..(page + 1) * PAGE].fill(byte);
            }
            run.to_vec()
        }
        3 => {
            // A torn write: one sector is not of the page.
            let at = page * PAGE + script.below(PAGE / SECTOR) * SECTOR;
            let byte = script.byte();
            image[at..at + SECTOR].fill(byte);
            vec![page]
        }
        4 => {
            // A misdirected write.
            let from = script.place(image.len() / PAGE);
            image.copy_within(from * PAGE..(from + 1) * PAGE, page * PAGE);
            vec![page]
        }
        5 | 6 if !earlier.is_empty() => {
            // A lost write.
            let old = &earlier[script.below(earlier.len().min(256))];
            for page in run {
                let bytes = page * PAGE..(page + 1) * PAGE;
                image[bytes.clone()].copy_from_slice(&old[bytes]);
            }
            run.to_vec()
        }
        _ => {
            let at = script.place(PAGE);
            let noise = script.bytes(16);
            let end = PAGE.min(at + noise.len());
            image[page * PAGE + at..page * PAGE + end].copy_from_slice(&noise[..end - at]);
            vec![page]
        }
    }
}
