//! The id that a request comes with: it makes every try of it one request.

use ogee_proto::checksum::crc32c;
use uuid::Uuid;

use super::context::unix_ms;
use super::error::ApiError;
use crate::limit::TEXT_LEN_MAX;
use crate::state::{Asked, Command, Once};

/// Of a request; none if it came without an id.
pub(super) struct Identity(Option<(Uuid, Asked)>);

impl Identity {
    /// Of a request without its id, which is in `id`; `what` names it for people.
    pub(super) fn new(
        id: &[u8],
        mut what: String,
        request: &impl prost::Message,
    ) -> Result<Self, ApiError> {
        if id.is_empty() {
            return Ok(Self(None));
        }
        let drawn = Uuid::from_slice(id).ok().filter(|id| !id.is_nil());
        let drawn = drawn.ok_or_else(|| {
            let found = format!("{} bytes", id.len());
            ApiError::bad_field("request_id", &found, "it is 16 bytes that are drawn")
        })?;
        what.truncate(what.floor_char_boundary(TEXT_LEN_MAX));
        let sum = crc32c(&request.encode_to_vec());
        Ok(Self(Some((drawn, Asked { what, sum }))))
    }

    /// The command that carries it out, once if it has an id.
    pub(super) fn seal(self, command: Command) -> Command {
        match self.0 {
            None => command,
            Some((id, asked)) => Command::Once(Once {
                id,
                asked,
                at_ms: unix_ms(),
                command: Box::new(command),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Identity;
    use crate::state::{Asked, Command};
    use ogee_proto::service::ResizeVolumeRequest;

    fn asked(id: &[u8], size: u64) -> Option<Asked> {
        let request = ResizeVolumeRequest {
            name: "v".into(),
            size,
            ..ResizeVolumeRequest::default()
        };
        let identity = Identity::new(id, format!("resize to {size}"), &request).expect("an id");
        match identity.seal(Command::AcceptRestore) {
            Command::Once(once) => Some(once.asked),
            _ => None,
        }
    }

    #[test]
    fn tries_of_one_request_are_alike_and_others_are_not() {
        let id = [7; 16];
        assert_eq!(asked(&id, 1), asked(&id, 1));
        assert_ne!(asked(&id, 1), asked(&id, 2));
        assert_eq!(asked(&[], 1), None);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        let request = ResizeVolumeRequest::default();
        for id in [&[1; 15][..], &[1; 17], &[0; 16]] {
            assert!(
                Identity::new(id, String::new(), &request).is_err(),
                "{id:?}"
            );
        }
    }
}
