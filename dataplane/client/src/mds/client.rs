//! Which metadata server to ask, and what to do when it does not answer.
//!
//! *Place*: under `volumes` and `topology`, over tonic channels.
//! *Owner*: any tokio runtime; clones share the endpoints and what was learnt about them.
//! *Invariants*: at most `MDS_ENDPOINTS_MAX` endpoints are known; the configured ones are never
//! forgotten. A call that may not be repeated goes out again only after an answer that proves that it was
//! not executed: a redirect, or a connection that never stood. One with an id goes out again under that id, and is
//! executed once.
//! *On failure*: the next endpoint at once, a jittered pause after each round over all of them,
//! until the patience of the configuration is over. What may have been executed then is said to be of unknown outcome.

use super::error::{ControlError, Refusal};
use crate::limit::{MDS_BACKOFF_MAX, MDS_BACKOFF_MIN, MDS_ENDPOINTS_MAX};
use ogee_proto::fault::{Fault, MDS_LEADER_METADATA};
use std::error::Error as _;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

/// How to reach the metadata servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MdsConfig {
    /// Their addresses: `host:port`.
    pub endpoints: Vec<String>,
    /// Time for a connection to stand.
    pub connect_timeout: Duration,
    /// Time for one answer.
    pub call_timeout: Duration,
    /// Time for one call with all its retries.
    pub patience: Duration,
}

/// The calls of the metadata servers. Clones are cheap and share connections.
#[derive(Clone)]
pub struct MdsClient {
    shared: Arc<Shared>,
}

struct Shared {
    config: MdsConfig,
    servers: Mutex<Servers>,
}

/// Endpoints and which of them to ask next.
struct Servers {
    known: Vec<Server>,
    configured: usize,
    preferred: usize,
}

#[derive(Clone)]
struct Server {
    address: String,
    channel: Channel,
}

/// Whether a call may be executed twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeat {
    /// Twice is as good as once.
    Freely,
    /// It carries an id by which the metadata servers know it again.
    ById,
    /// Only if it was not executed.
    Never,
}

/// What came of the tries of a call so far.
#[derive(Default)]
struct Tries {
    last: Option<Box<Status>>,
    /// Who may have executed it, without an answer.
    unknown: Option<String>,
}

/// What an unusable answer proves.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    /// The server has decided: no.
    Refused,
    /// Not executed: ask this one.
    Redirected(String),
    /// Not executed: ask another.
    NotExecuted,
    /// Perhaps executed.
    Unknown,
}

impl MdsConfig {
    /// Defaults over these endpoints.
    #[must_use]
    pub const fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            connect_timeout: Duration::from_secs(1),
            call_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(15),
        }
    }
}

impl MdsClient {
    /// A client of the configured endpoints. Connects when first used.
    ///
    /// Must be called within a tokio runtime, which then owns its connections.
    ///
    /// # Errors
    /// [`ControlError::Address`] or [`ControlError::NoEndpoints`].
    pub fn new(config: MdsConfig) -> Result<Self, ControlError> {
        let configured = config.endpoints.iter().take(MDS_ENDPOINTS_MAX);
        let known = configured
            .map(|address| Server::new(address, &config))
            .collect::<Result<Vec<_>, ControlError>>()?;
        if known.is_empty() {
            return Err(ControlError::NoEndpoints);
        }
        let servers = Servers {
            configured: known.len(),
            known,
            preferred: 0,
        };
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                servers: Mutex::new(servers),
            }),
        })
    }

    /// Asks until somebody decides or patience is over.
    pub(super) async fn call<T, F, A>(&self, repeat: Repeat, ask: F) -> Result<T, ControlError>
    where
        F: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let patience = self.shared.config.patience;
        let mut tries = Tries::default();
        let asked = self.ask_all(repeat, &ask, &mut tries);
        if let Ok(outcome) = tokio::time::timeout(patience, asked).await {
            return outcome;
        }
        let Tries { last, unknown } = tries;
        match unknown.filter(|_| repeat == Repeat::ById) {
            Some(endpoint) => Err(ControlError::OutcomeUnknown { endpoint, last }),
            None => Err(ControlError::Unreachable {
                endpoints: self.shared.config.endpoints.clone(),
                waited: patience,
                last,
            }),
        }
    }

    async fn ask_all<T, F, A>(
        &self,
        repeat: Repeat,
        ask: &F,
        so_far: &mut Tries,
    ) -> Result<T, ControlError>
    where
        F: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let mut tries = 0;
        loop {
            let server = self.servers().preferred().clone();
            // Until it has answered, and when patience ends meanwhile, it may have done so.
            let before = so_far.unknown.replace(server.address.clone());
            let status = match self.ask_one(&server, ask).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let verdict = verdict(&status);
            if verdict != Verdict::Unknown {
                so_far.unknown = before;
            }
            match verdict {
                Verdict::Refused => {
                    return Err(ControlError::Refused(Box::new(Refusal::new(status))));
                }
                Verdict::Unknown if repeat == Repeat::Never => {
                    let (endpoint, last) = (server.address, Some(Box::new(status)));
                    return Err(ControlError::OutcomeUnknown { endpoint, last });
                }
                Verdict::Redirected(leader) => self.follow(&server, &leader),
                Verdict::NotExecuted | Verdict::Unknown => self.servers().rotate(&server.address),
            }
            so_far.last = Some(Box::new(status));
            tries += 1;
            self.pause_after_round(tries).await;
        }
    }

    async fn ask_one<T, F, A>(&self, server: &Server, ask: &F) -> Result<T, Status>
    where
        F: Fn(Channel) -> A,
        A: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = ask(server.channel.clone());
        match tokio::time::timeout(self.shared.config.call_timeout, answer).await {
            Ok(outcome) => outcome.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    /// Takes note of where the metadata servers are by now: the configured ones stay known, those that
    /// were learnt before and are none any more are forgotten.
    pub(super) fn learn(&self, addresses: &[String]) {
        if !addresses.is_empty() {
            self.servers()
                .replace_learnt(addresses, &self.shared.config);
        }
    }

    fn follow(&self, from: &Server, leader: &str) {
        let mut servers = self.servers();
        // An address that cannot be parsed is as good as none.
        if servers.prefer(leader, &self.shared.config).is_err() {
            servers.rotate(&from.address);
        }
    }

    async fn pause_after_round(&self, tries: u32) {
        let round = u32::try_from(self.servers().known.len()).unwrap_or(u32::MAX);
        if !tries.is_multiple_of(round) {
            return;
        }
        let factor = 1u32.checked_shl(tries / round - 1).unwrap_or(u32::MAX);
        let ceiling = MDS_BACKOFF_MIN.saturating_mul(factor).min(MDS_BACKOFF_MAX);
        tokio::time::sleep(ceiling.mul_f64(rand::random_range(0.5..1.0))).await;
    }

    fn servers(&self) -> MutexGuard<'_, Servers> {
        // Every change is complete before the lock is left, also by a panic.
        self.shared
            .servers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    fn new(address: &str, config: &MdsConfig) -> Result<Self, ControlError> {
        let bare = address
            .strip_prefix("http://")
            .unwrap_or(address)
            .trim_end_matches('/');
        let bad = || ControlError::Address(address.into());
        let has_port = bare
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let endpoint = Endpoint::from_shared(format!("http://{bare}")).map_err(|_| bad())?;
        if !has_port {
            return Err(bad());
        }
        let endpoint = endpoint
            .connect_timeout(config.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(config.call_timeout)
            .keep_alive_timeout(config.call_timeout);
        Ok(Self {
            address: bare.to_owned(),
            channel: endpoint.connect_lazy(),
        })
    }
}

impl Servers {
    fn preferred(&self) -> &Server {
        self.known
            .get(self.preferred)
            .expect("invariant: the preferred server is known")
    }

    /// Moves on, unless another call has done so already.
    fn rotate(&mut self, from: &str) {
        if self.preferred().address == from {
            self.preferred = (self.preferred + 1) % self.known.len();
        }
    }

    /// Prefers `address`, learning it if it is new.
    fn prefer(&mut self, address: &str, config: &MdsConfig) -> Result<(), ControlError> {
        let server = Server::new(address, config)?;
        let at = self
            .known
            .iter()
            .position(|known| known.address == server.address);
        self.preferred = at.unwrap_or_else(|| self.learn(server));
        Ok(())
    }

    /// An address that cannot be used is passed over; the one that answers stays preferred.
    fn replace_learnt(&mut self, addresses: &[String], config: &MdsConfig) {
        let answers = self.preferred().clone();
        let is_kept = |server: &Server| addresses.contains(&server.address);
        let mut known: Vec<Server> = self.known.iter().take(self.configured).cloned().collect();
        let learnt = self.known.iter().skip(self.configured);
        known.extend(learnt.filter(|server| is_kept(server)).cloned());
        for address in addresses {
            let is_new = known.iter().all(|server| server.address != *address);
            if is_new && known.len() < MDS_ENDPOINTS_MAX {
                known.extend(Server::new(address, config));
            }
        }
        let at = known.iter().position(|it| it.address == answers.address);
        self.known = known;
        self.preferred = at.unwrap_or(0);
    }

    fn learn(&mut self, server: Server) -> usize {
        if self.known.len() >= MDS_ENDPOINTS_MAX {
            // The oldest learnt one goes; configured ones stay unless they fill the table.
            self.known
                .remove(self.configured.min(MDS_ENDPOINTS_MAX - 1));
        }
        self.known.push(server);
        self.known.len() - 1
    }
}

fn verdict(status: &Status) -> Verdict {
    let leader = status.metadata().get(MDS_LEADER_METADATA);
    match (status.code(), leader.and_then(|value| value.to_str().ok())) {
        (Code::Unavailable, Some(leader)) => Verdict::Redirected(leader.to_owned()),
        _ if never_connected(status) => Verdict::NotExecuted,
        _ => match Fault::parse(status.message()) {
            Some(fault) => said(&fault),
            None => unsaid(status),
        },
    }
}

/// What a metadata server's own words prove.
fn said(fault: &Fault) -> Verdict {
    match fault.code() {
        // Not the leader, no leader, too many requests.
        "OGEE-2030" | "OGEE-2031" | "OGEE-2032" => Verdict::NotExecuted,
        // No quorum in time, going down: the command may have been proposed.
        "OGEE-2033" | "OGEE-2034" => Verdict::Unknown,
        _ => Verdict::Refused,
    }
}

/// What an answer without such words proves: it may come from the channel or from a proxy.
fn unsaid(status: &Status) -> Verdict {
    let transient = matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted
    );
    // Servers cannot send a source: with one, the channel itself failed.
    if transient || status.source().is_some() {
        Verdict::Unknown
    } else {
        Verdict::Refused
    }
}

/// Whether the request never left this process.
fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_leader(mut status: Status, leader: &str) -> Status {
        status
            .metadata_mut()
            .insert(MDS_LEADER_METADATA, leader.parse().unwrap());
        status
    }

    #[test]
    fn answers_prove_what_they_prove() {
        let redirected = with_leader(Status::unavailable("not me"), "10.0.0.2:7000");
        assert_eq!(
            verdict(&redirected),
            Verdict::Redirected("10.0.0.2:7000".into())
        );
        assert_eq!(verdict(&Status::unavailable("busy")), Verdict::Unknown);
        assert_eq!(
            verdict(&Status::deadline_exceeded("late")),
            Verdict::Unknown
        );
        assert_eq!(
            verdict(&Status::not_found("no such volume")),
            Verdict::Refused
        );
        assert_eq!(
            verdict(&Status::failed_precondition("in use")),
            Verdict::Refused
        );
    }

    #[test]
    fn a_server_that_says_why_is_taken_at_its_word() {
        let said = |code, grpc: fn(String) -> Status| {
            verdict(&grpc(
                Fault::new(code, "what", "cause", "remedy").to_string(),
            ))
        };
        assert_eq!(said("OGEE-2031", Status::unavailable), Verdict::NotExecuted);
        assert_eq!(
            said("OGEE-2032", Status::resource_exhausted),
            Verdict::NotExecuted
        );
        assert_eq!(
            said("OGEE-2033", Status::deadline_exceeded),
            Verdict::Unknown
        );
        assert_eq!(said("OGEE-2034", Status::unavailable), Verdict::Unknown);
        let stale = said("OGEE-2013", Status::aborted);
        assert_eq!(stale, Verdict::Refused, "a stale attachment stays stale");
    }

    #[tokio::test]
    async fn addresses_are_checked() {
        let new = |address: &str| MdsClient::new(MdsConfig::new(vec![address.to_owned()]));
        for good in [
            "127.0.0.1:7000",
            "http://mds-1:7000",
            "[::1]:7000",
            "http://a:1/",
        ] {
            assert!(new(good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1", "mds one:7000", "mds:port"] {
            assert!(matches!(new(bad), Err(ControlError::Address(_))), "{bad}");
        }
        let none = MdsClient::new(MdsConfig::new(vec![]));
        assert!(matches!(none, Err(ControlError::NoEndpoints)));
    }

    #[tokio::test]
    async fn what_was_learnt_goes_when_it_is_none_any_more() {
        let config = MdsConfig::new(vec!["10.0.0.1:1".into()]);
        let client = MdsClient::new(config.clone()).unwrap();
        let addresses = |client: &MdsClient| -> Vec<String> {
            let servers = client.servers();
            servers.known.iter().map(|it| it.address.clone()).collect()
        };
        client.learn(&[
            "10.0.0.1:1".into(),
            "10.0.0.2:1".into(),
            "no address".into(),
        ]);
        assert_eq!(addresses(&client), ["10.0.0.1:1", "10.0.0.2:1"]);
        client.servers().prefer("10.0.0.2:1", &config).unwrap();
        client.learn(&["10.0.0.2:1".into(), "10.0.0.3:1".into()]);
        assert_eq!(
            addresses(&client),
            ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]
        );
        assert_eq!(client.servers().preferred().address, "10.0.0.2:1");
        client.learn(&["10.0.0.3:1".into()]);
        assert_eq!(addresses(&client), ["10.0.0.1:1", "10.0.0.3:1"]);
        assert_eq!(client.servers().preferred().address, "10.0.0.1:1");
        client.learn(&[]);
        assert_eq!(addresses(&client).len(), 2, "silence says nothing");
        let many: Vec<String> = (0..100).map(|n| format!("10.0.1.{n}:1")).collect();
        client.learn(&many);
        assert_eq!(addresses(&client).len(), MDS_ENDPOINTS_MAX);
    }

    #[tokio::test]
    async fn learnt_endpoints_are_bounded() {
        let config = MdsConfig::new(vec!["10.0.0.1:1".into(), "10.0.0.2:1".into()]);
        let client = MdsClient::new(config.clone()).unwrap();
        for port in 100..200 {
            client
                .servers()
                .prefer(&format!("10.0.0.3:{port}"), &config)
                .unwrap();
        }
        let servers = client.servers();
        assert_eq!(servers.known.len(), MDS_ENDPOINTS_MAX);
        assert_eq!(servers.preferred().address, "10.0.0.3:199");
        assert_eq!(servers.known[0].address, "10.0.0.1:1");
        assert_eq!(servers.known[1].address, "10.0.0.2:1");
    }
}
