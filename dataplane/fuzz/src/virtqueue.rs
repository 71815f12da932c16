//! A virtqueue of a guest that writes whatever it likes, whenever it likes.
//!
//! The input begins with the ring's size and places, then comes the guest's memory; what is left is what
//! the guest writes, and we do, in turns: take requests, answer one of those under way, or die and begin anew.

use crate::script::Script;
use ogee_frontend::vhost::fuzzing::Guest;

const MEMORY: usize = 4096;
const TURNS_MAX: usize = 64;

/// One input.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let (size, flags) = (script.byte(), script.byte());
    let places = [script.u16(), script.u16(), script.u16()].map(|place| u64::from(place) * 16);
    let image = script.bytes(MEMORY);
    let Some(mut guest) = Guest::new(image, size, flags, places) else {
        return;
    };
    for _ in 0..TURNS_MAX {
        if script.is_over() && !guest.has_requests() {
            return;
        }
        let is_whole = match script.below(4) {
            0 => {
                let (at, len) = (script.place(MEMORY), script.below(32));
                guest.scribble(at, script.bytes(len));
                true
            }
            1 => guest.restart(),
            2 => guest.answer(script.below(256)),
            _ => guest.take(),
        };
        // A ring that is broken stays so until it is reset.
        if !is_whole {
            return;
        }
        if script.is_over() {
            while guest.has_requests() && guest.answer(0) {}
            return;
        }
    }
}
