//! The server's side of a negotiation.
//!
//! *Place*: between `option` (what was asked) and `session` (what came of it); `connection` moves
//! the bytes. *Owner*: one connection. *Invariants*: plain code without I/O: one option in, its
//! replies and a verdict out. Only `GO` and `EXPORT_NAME` start a transmission, only for an export
//! that exists. *On failure*: every option but `EXPORT_NAME` can be refused and the negotiation
//! goes on.

use super::error::ConnectionError;
use super::export::{Export, Exports};
use super::option::{Ask, Malformed};
use super::session::{Session, transmission_flags};
use super::wire::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, EXPORT_NAME_PADDING, NBD_MAGIC, OPTION_MAGIC,
    OPTION_REPLY_MAGIC, handshake_flag, info, option_reply,
};
use crate::disk::Disk;
use crate::limit::{OPTION_LEN_MAX, PAYLOAD_MAX};
use ogee_proto::limit::BLOCK_SIZE;
use std::rc::Rc;

/// What the first message of the server says.
pub(super) fn greeting() -> Vec<u8> {
    let mut greeting = Vec::new();
    greeting.extend_from_slice(&NBD_MAGIC.to_be_bytes());
    greeting.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    greeting.extend_from_slice(&HANDSHAKE_FLAGS.to_be_bytes());
    greeting
}

const HANDSHAKE_FLAGS: u16 = handshake_flag::FIXED_NEWSTYLE | handshake_flag::NO_ZEROES;

/// What follows an option.
pub(super) enum Verdict<D> {
    /// The next option.
    Continue,
    /// Requests.
    Transmit(Session<D>),
    /// The end, as the client wishes.
    End,
}

/// A negotiation under way.
pub(super) struct Handshake<D> {
    exports: Exports<D>,
    has_no_zeroes: bool,
    is_structured: bool,
    /// The export for which the client chose `base:allocation`.
    context_of: Option<String>,
}

impl<D: Disk> Handshake<D> {
    /// Starts with the flags that the client answered to the greeting.
    pub(super) fn new(exports: Exports<D>, client_flags: u32) -> Result<Self, ConnectionError> {
        if client_flags & !u32::from(HANDSHAKE_FLAGS) != 0 {
            return Err(ConnectionError::ClientFlags(client_flags));
        }
        Ok(Self {
            exports,
            has_no_zeroes: client_flags & u32::from(handshake_flag::NO_ZEROES) != 0,
            is_structured: false,
            context_of: None,
        })
    }

    /// Answers one option; the replies are appended to `out`.
    pub(super) fn answer(
        &mut self,
        code: u32,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Verdict<D>, ConnectionError> {
        let mut replies = Replies { code, out };
        let ask = match Ask::decode(code, data) {
            Ok(ask) => ask,
            Err(malformed) => return self.refuse_malformed(malformed, &mut replies),
        };
        match ask {
            Ask::ExportName(name) => return self.export_name(name, replies.out),
            Ask::Describe { name, infos, is_go } => {
                return Ok(self.describe(name, &infos, is_go, &mut replies));
            }
            Ask::Contexts {
                name,
                queries,
                is_set,
            } => self.contexts(name, &queries, is_set, &mut replies),
            Ask::List => self.list(&mut replies),
            Ask::StructuredReply => {
                self.is_structured = true;
                replies.ack();
            }
            Ask::Abort => {
                replies.ack();
                return Ok(Verdict::End);
            }
            Ask::Unknown => replies.error(option_reply::ERR_UNSUP, "not supported"),
        }
        Ok(Verdict::Continue)
    }

    /// Answers an option whose data is too long to be looked at.
    pub(super) fn refuse_too_long(
        &self,
        code: u32,
        out: &mut Vec<u8>,
    ) -> Result<Verdict<D>, ConnectionError> {
        if code == super::wire::option::EXPORT_NAME {
            return Err(ConnectionError::NoSuchExport);
        }
        let text = format!("more than {OPTION_LEN_MAX} bytes of data");
        Replies { code, out }.error(option_reply::ERR_TOO_BIG, &text);
        Ok(Verdict::Continue)
    }

    fn refuse_malformed(
        &mut self,
        malformed: Malformed,
        replies: &mut Replies<'_>,
    ) -> Result<Verdict<D>, ConnectionError> {
        match replies.code {
            super::wire::option::EXPORT_NAME => return Err(ConnectionError::NoSuchExport),
            // A choice that fails replaces the former one all the same.
            super::wire::option::SET_META_CONTEXT => self.context_of = None,
            _ => {}
        }
        replies.error(malformed.code(), &malformed.to_string());
        Ok(Verdict::Continue)
    }

    /// The old way in: no reply says that there is no such export.
    fn export_name(
        &mut self,
        name: &str,
        out: &mut Vec<u8>,
    ) -> Result<Verdict<D>, ConnectionError> {
        let export = self.exports.find(name);
        let export = export.ok_or(ConnectionError::NoSuchExport)?;
        out.extend_from_slice(&export.disk.disk().size().get().to_be_bytes());
        let flags = transmission_flags(&export, self.is_structured);
        out.extend_from_slice(&flags.to_be_bytes());
        if !self.has_no_zeroes {
            out.resize(out.len() + EXPORT_NAME_PADDING, 0);
        }
        Ok(Verdict::Transmit(self.session(export)))
    }

    fn describe(
        &self,
        name: &str,
        infos: &[u16],
        is_go: bool,
        replies: &mut Replies<'_>,
    ) -> Verdict<D> {
        let Some(export) = self.exports.find(name) else {
            replies.no_export(name);
            return Verdict::Continue;
        };
        let size = export.disk.disk().size().get();
        let flags = transmission_flags(&export, self.is_structured);
        replies.info(info::EXPORT, &[&size.to_be_bytes(), &flags.to_be_bytes()]);
        if infos.contains(&info::NAME) {
            replies.info(info::NAME, &[export.name.as_bytes()]);
        }
        if infos.contains(&info::DESCRIPTION) {
            replies.info(info::DESCRIPTION, &[export.description.as_bytes()]);
        }
        if infos.contains(&info::BLOCK_SIZE) {
            let sizes = BLOCK_SIZES.map(u32::to_be_bytes);
            replies.info(info::BLOCK_SIZE, &[sizes.as_flattened()]);
        }
        replies.ack();
        match is_go {
            true => Verdict::Transmit(self.session(export)),
            false => Verdict::Continue,
        }
    }

    fn list(&self, replies: &mut Replies<'_>) {
        for export in self.exports.all() {
            replies.put(
                option_reply::SERVER,
                &[
                    &length(export.name.len()).to_be_bytes(),
                    export.name.as_bytes(),
                    export.description.as_bytes(),
                ],
            );
        }
        replies.ack();
    }

    fn contexts(&mut self, name: &str, queries: &[&str], is_set: bool, replies: &mut Replies<'_>) {
        if is_set {
            self.context_of = None;
        }
        if !self.is_structured {
            replies.error(
                option_reply::ERR_INVALID,
                "structured replies were not negotiated",
            );
            return;
        }
        let Some(export) = self.exports.find(name) else {
            replies.no_export(name);
            return;
        };
        let is_named = queries.contains(&BASE_ALLOCATION);
        let id = match is_set {
            true => is_named.then_some(BASE_ALLOCATION_ID),
            // Ids mean nothing in a list.
            false => (is_named || queries.is_empty() || queries.contains(&"base:")).then_some(0),
        };
        if let Some(id) = id {
            let fields: [&[u8]; 2] = [&id.to_be_bytes(), BASE_ALLOCATION.as_bytes()];
            replies.put(option_reply::META_CONTEXT, &fields);
        }
        if is_set && is_named {
            self.context_of = Some(export.name.clone());
        }
        replies.ack();
    }

    fn session(&self, export: Rc<Export<D>>) -> Session<D> {
        let has_status = self.context_of.as_ref() == Some(&export.name);
        Session {
            export,
            is_structured: self.is_structured,
            has_status,
        }
    }
}

/// Minimum, preferred and maximum size of a payload.
const BLOCK_SIZES: [u32; 3] = [1, length(BLOCK_SIZE), length(PAYLOAD_MAX)];

/// A length of ours as a field: all are far below 4 GiB.
#[expect(clippy::cast_possible_truncation, reason = "asserted in the same line")]
const fn length(len: usize) -> u32 {
    assert!(len <= u32::MAX as usize);
    len as u32
}

/// Replies to one option.
struct Replies<'a> {
    code: u32,
    out: &'a mut Vec<u8>,
}

impl Replies<'_> {
    fn put(&mut self, kind: u32, fields: &[&[u8]]) {
        let len = fields.iter().map(|field| field.len()).sum();
        self.out
            .extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
        self.out.extend_from_slice(&self.code.to_be_bytes());
        self.out.extend_from_slice(&kind.to_be_bytes());
        self.out.extend_from_slice(&length(len).to_be_bytes());
        for field in fields {
            self.out.extend_from_slice(field);
        }
    }

    fn ack(&mut self) {
        self.put(option_reply::ACK, &[]);
    }

    fn error(&mut self, kind: u32, text: &str) {
        self.put(kind, &[text.as_bytes()]);
    }

    fn no_export(&mut self, name: &str) {
        let text = match name {
            "" => "there is no default export: name one",
            _ => "no such export",
        };
        self.error(option_reply::ERR_UNKNOWN, text);
    }

    fn info(&mut self, kind: u16, fields: &[&[u8]]) {
        let kind = kind.to_be_bytes();
        let mut all: Vec<&[u8]> = vec![&kind];
        all.extend_from_slice(fields);
        self.put(option_reply::INFO, &all);
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
