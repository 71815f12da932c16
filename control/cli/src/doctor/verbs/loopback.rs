//! An RDMA WRITE from a port of this host to itself.
//!
//! *Place*: under `verbs`. *Owner*: both ends of the connection, until it returns. *Invariants*: it ends within
//! `PATIENCE`. *On failure*: the step that failed, in the binding's words.

use ogee_rdma::{
    Access, Channel, Completion, ConnectParams, Domain, Done, Event, EventKind, Id, IdKey, Pair,
    Rail, RailLimits, RdmaError, Slab, Source,
};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

/// All of it together. An emulated device on an emulated machine needs some of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what has happened.
const LOOK: Duration = Duration::from_micros(200);
const BYTES: usize = 4096;
const PIECES: u32 = 2;
const DEPTH: u32 = 4;

/// Writes a block to ourselves by RDMA, and looks whether it is there. How long the write took.
pub(super) fn write_to_self(device: &str, address: IpAddr) -> Result<Duration, String> {
    let mut ends = Ends::open(device).map_err(|error| told("open the device", &error))?;
    let (asking, answering, _listener) = ends.connect(address)?;
    let pattern: Vec<u8> = (0..BYTES).map(|at| (at % 251).to_le_bytes()[0]).collect();

    let target = ends.piece()?;
    let lent = asking.lend(target, BYTES, Access::Write, 1);
    let lent = lent.map_err(|failed| told("bind a memory window", &failed.error))?;
    ends.completion(&asking, 1)?;
    let mut source = ends.piece()?;
    source[..BYTES].copy_from_slice(&pattern);
    let began = Instant::now();
    let written = answering.write(source, lent.remote(), 2);
    written.map_err(|failed| told("post the write", &failed.error))?;
    ends.completion(&answering, 2)?;
    let took = began.elapsed();
    let reclaimed = asking.reclaim(lent, 3);
    reclaimed.map_err(|failed| told("void the key", &failed.error))?;
    match ends.completion(&asking, 3)? {
        Done::Reclaimed(Source::Own(piece)) if piece[..BYTES] == pattern => Ok(took),
        Done::Reclaimed(_) => Err("other bytes arrived than were written".into()),
        other => Err(format!("the memory did not come back: {other:?}")),
    }
}

struct Ends {
    channel: Channel,
    rail: Rail,
    slab: Slab,
    events: VecDeque<Event>,
    completions: VecDeque<Completion>,
    until: Instant,
}

fn told(doing: &str, error: &RdmaError) -> String {
    format!("cannot {doing}: {error}")
}

impl Ends {
    fn open(device: &str) -> Result<Self, RdmaError> {
        let domain = Domain::open(Some(device))?;
        let limits = RailLimits {
            sends: 2 * DEPTH,
            receives: 1,
        };
        Ok(Self {
            channel: Channel::new()?,
            rail: Rail::new(&domain, limits)?,
            slab: Slab::register(&domain, BYTES, PIECES)?,
            events: VecDeque::new(),
            completions: VecDeque::new(),
            until: Instant::now() + PATIENCE,
        })
    }

    fn piece(&self) -> Result<ogee_rdma::Piece, String> {
        self.slab.take().ok_or_else(|| "no memory is left".into())
    }

    /// Both ends of a connection, and what listened for it.
    fn connect(&mut self, address: IpAddr) -> Result<(Pair, Pair, Id), String> {
        let failed = |doing: &'static str| move |error: RdmaError| told(doing, &error);
        let listener = Id::new(&self.channel).map_err(failed("make an id"))?;
        let port = listener.listen(SocketAddr::new(address, 0), 1);
        let port = port.map_err(failed("listen"))?;

        let id = Id::new(&self.channel).map_err(failed("make an id"))?;
        let resolved = id.resolve(SocketAddr::new(address, port), PATIENCE);
        resolved.map_err(failed("resolve the address"))?;
        self.expect(id.key(), |kind| matches!(kind, EventKind::AddressResolved))?;
        id.resolve_route(PATIENCE)
            .map_err(failed("resolve the route"))?;
        self.expect(id.key(), |kind| matches!(kind, EventKind::RouteResolved))?;
        let asking = Pair::new(&self.rail, id, DEPTH);
        let asking = asking.map_err(|failed| told("make a queue pair", &failed.error))?;
        asking
            .connect(&ConnectParams::default())
            .map_err(failed("connect"))?;

        let request = self.expect(listener.key(), |kind| matches!(kind, EventKind::Request(_)))?;
        let EventKind::Request(id) = request else {
            return Err("no request came".into());
        };
        let answering = Pair::new(&self.rail, id, DEPTH);
        let answering = answering.map_err(|failed| told("make a queue pair", &failed.error))?;
        answering
            .accept(&ConnectParams::default())
            .map_err(failed("accept"))?;
        for pair in [&asking, &answering] {
            self.expect(pair.key(), |kind| matches!(kind, EventKind::Established))?;
        }
        Ok((asking, answering, listener))
    }

    /// The next event of a connection, which must be that.
    fn expect(
        &mut self,
        id: IdKey,
        is_it: impl Fn(&EventKind) -> bool,
    ) -> Result<EventKind, String> {
        loop {
            if let Some(at) = self.events.iter().position(|event| event.id == id)
                && let Some(event) = self.events.remove(at)
            {
                return match is_it(&event.kind) {
                    true => Ok(event.kind),
                    false => Err(format!(
                        "the connection ended with {:?} ({})",
                        event.kind, event.status
                    )),
                };
            }
            self.look()?;
        }
    }

    /// The end of a work request.
    fn completion(&mut self, pair: &Pair, token: u64) -> Result<Done, String> {
        let number = pair.number();
        loop {
            let is_it = |it: &Completion| it.pair == number && it.token == token;
            if let Some(at) = self.completions.iter().position(is_it)
                && let Some(completion) = self.completions.remove(at)
            {
                let ended = completion.outcome;
                return ended
                    .map(|()| completion.done)
                    .map_err(|error| format!("the write failed: {error}"));
            }
            self.look()?;
        }
    }

    fn look(&mut self) -> Result<(), String> {
        if Instant::now() > self.until {
            let seconds = PATIENCE.as_secs();
            return Err(format!("nothing happened any more within {seconds} s"));
        }
        let mut found = Vec::new();
        let polled = self.rail.poll(&mut found, 16);
        polled.map_err(|error| told("poll completions", &error))?;
        let is_idle = found.is_empty();
        self.completions.extend(found);
        let event = self.channel.next();
        match event.map_err(|error| told("read an event", &error))? {
            Some(event) => self.events.push_back(event),
            None if is_idle => thread::sleep(LOOK),
            None => {}
        }
        Ok(())
    }
}
