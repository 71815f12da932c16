//! gRPC to whichever MDS leads.

use ogee_proto::heartbeat::Teller;
use ogee_proto::service::chunkservers_client::ChunkserversClient;
use ogee_proto::service::{HeartbeatRequest, HeartbeatResponse, RegisterRequest, RegisterResponse};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Bound of one call.
const CALL: Duration = Duration::from_secs(2);
/// Bound of a connection attempt.
const CONNECT: Duration = Duration::from_secs(1);
/// MDSes that are known, more than there can be members.
const ENDPOINTS_MAX: usize = 16;
/// Where an MDS that does not lead says who does.
const LEADER: &str = "ogee-mds-leader";

/// The MDSes, one of which is being talked to.
pub(super) struct MdsClient {
    /// The configured ones, then those that were learnt.
    endpoints: Vec<String>,
    configured: usize,
    current: usize,
    channel: Option<ChunkserversClient<Channel>>,
}

impl MdsClient {
    pub(super) const fn new(endpoints: Vec<String>) -> Self {
        Self {
            configured: endpoints.len(),
            endpoints,
            current: 0,
            channel: None,
        }
    }

    pub(super) async fn register(
        &mut self,
        request: &RegisterRequest,
    ) -> Result<RegisterResponse, Status> {
        let mut client = self.client()?;
        let answer = client.register(timed(request.clone())).await;
        self.settle(answer.map(tonic::Response::into_inner))
    }

    /// One heartbeat: of what has changed, or of all, if that is what the MDS needs. What was taken of one that fails is
    /// not known: the next one is of all.
    pub(super) async fn beat(
        &mut self,
        teller: &mut Teller,
        all: &HeartbeatRequest,
        now: Duration,
    ) -> Result<HeartbeatResponse, Status> {
        if let Some(changes) = teller.changes(all, now) {
            match self.heartbeat_changes(changes).await {
                Ok(answer) if !answer.report_all => return Ok(answer),
                Ok(_) => tracing::debug!("the MDS does not have what has changed"),
                Err(status) if status.code() == Code::Unimplemented => {
                    tracing::debug!("an MDS of an older version");
                }
                Err(status) => {
                    teller.forget();
                    return Err(status);
                }
            }
        }
        teller.forget();
        self.heartbeat(all).await
    }

    async fn heartbeat(&mut self, all: &HeartbeatRequest) -> Result<HeartbeatResponse, Status> {
        let mut client = self.client()?;
        let answer = client.heartbeat(timed(all.clone())).await;
        self.settle(answer.map(tonic::Response::into_inner))
    }

    async fn heartbeat_changes(
        &mut self,
        changes: HeartbeatRequest,
    ) -> Result<HeartbeatResponse, Status> {
        let mut client = self.client()?;
        let answer = client.heartbeat_changes(timed(changes)).await;
        self.settle(answer.map(tonic::Response::into_inner))
    }

    /// Takes note of where the MDSes are by now. The configured ones are never forgotten.
    pub(super) fn learn(&mut self, addresses: &[String]) {
        if addresses.is_empty() {
            return;
        }
        let answers = self.endpoints.get(self.current).cloned();
        self.endpoints.truncate(self.configured);
        for address in addresses {
            if !self.endpoints.contains(address) && self.endpoints.len() < ENDPOINTS_MAX {
                self.endpoints.push(address.clone());
            }
        }
        let at = answers.and_then(|it| self.endpoints.iter().position(|known| *known == it));
        // One that answered and is none any more: the next call goes to another.
        if at.is_none() {
            self.channel = None;
        }
        self.current = at.unwrap_or(0);
    }

    fn client(&mut self) -> Result<ChunkserversClient<Channel>, Status> {
        if let Some(client) = &self.channel {
            return Ok(client.clone());
        }
        let none = || Status::invalid_argument("no MDS endpoint is configured");
        let endpoint = self.endpoints.get(self.current).ok_or_else(none)?;
        let made = Endpoint::from_shared(format!("http://{endpoint}"));
        let made = made.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let client = ChunkserversClient::new(made.connect_timeout(CONNECT).connect_lazy());
        self.channel = Some(client.clone());
        Ok(client)
    }

    /// After a failure the next call goes to the leader that was named, else to the next MDS.
    fn settle<T>(&mut self, answer: Result<T, Status>) -> Result<T, Status> {
        if let Err(status) = &answer
            && matches!(
                status.code(),
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled
            )
        {
            let named = status
                .metadata()
                .get(LEADER)
                .and_then(|value| value.to_str().ok());
            let next = (self.current + 1) % self.endpoints.len().max(1);
            self.current = named.map_or(next, |leader| self.place_of(leader, next));
            self.channel = None;
        }
        answer
    }

    /// Where that leader stands in the list; if there is no room for it, the next one does.
    fn place_of(&mut self, leader: &str, next: usize) -> usize {
        let known = self.endpoints.iter().position(|it| it == leader);
        if known.is_none() && !leader.is_empty() && self.endpoints.len() < ENDPOINTS_MAX {
            self.endpoints.push(leader.to_owned());
            return self.endpoints.len() - 1;
        }
        known.unwrap_or(next)
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL);
    request
}

#[cfg(test)]
mod tests {
    use super::{ENDPOINTS_MAX, MdsClient};
    use ogee_proto::heartbeat::{Answered, Teller};
    use ogee_proto::service::chunkservers_server::{Chunkservers, ChunkserversServer};
    use ogee_proto::service::{
        HeartbeatRequest, HeartbeatResponse, RegisterRequest, RegisterResponse, ReplicaReport,
    };
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tonic::transport::Server;
    use tonic::transport::server::TcpIncoming;
    use tonic::{Request, Response, Status};

    /// What it is told, by replicas: of whole reports, and of changes.
    type Heard = Arc<Mutex<Vec<(&'static str, usize)>>>;

    /// An MDS that answers changes as it is set to.
    struct Mds {
        heard: Heard,
        on_changes: fn() -> Result<HeartbeatResponse, Status>,
    }

    #[tonic::async_trait]
    impl Chunkservers for Mds {
        async fn register(
            &self,
            _: Request<RegisterRequest>,
        ) -> Result<Response<RegisterResponse>, Status> {
            Err(Status::unimplemented("not asked for"))
        }

        async fn heartbeat(
            &self,
            request: Request<HeartbeatRequest>,
        ) -> Result<Response<HeartbeatResponse>, Status> {
            let told = request.into_inner().replicas.len();
            self.heard.lock().unwrap().push(("whole", told));
            Ok(Response::new(taken()))
        }

        async fn heartbeat_changes(
            &self,
            request: Request<HeartbeatRequest>,
        ) -> Result<Response<HeartbeatResponse>, Status> {
            let told = request.into_inner().replicas.len();
            self.heard.lock().unwrap().push(("changes", told));
            (self.on_changes)().map(Response::new)
        }
    }

    fn taken() -> HeartbeatResponse {
        HeartbeatResponse {
            known: true,
            session: 5,
            report: 1,
            ..HeartbeatResponse::default()
        }
    }

    /// Three heartbeats of one replica, the answers to which are taken.
    fn three_beats(
        on_changes: fn() -> Result<HeartbeatResponse, Status>,
    ) -> Vec<(&'static str, usize)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let heard = Heard::default();
            let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = incoming.local_addr().unwrap().to_string();
            let mds = ChunkserversServer::new(Mds {
                heard: heard.clone(),
                on_changes,
            });
            let serving = Server::builder().add_service(mds);
            tokio::spawn(serving.serve_with_incoming(incoming));
            let mut mds = MdsClient::new(vec![address]);
            let mut teller = Teller::default();
            let all = HeartbeatRequest {
                replicas: vec![ReplicaReport::default()],
                ..HeartbeatRequest::default()
            };
            for _ in 0..3 {
                let now = Duration::ZERO;
                if let Ok(answer) = mds.beat(&mut teller, &all, now).await {
                    teller.answered(&all, Answered::of(&answer), now);
                }
            }
            let heard = heard.lock().unwrap();
            heard.clone()
        })
    }

    #[test]
    fn what_is_as_it_was_is_not_told_again() {
        let heard = three_beats(|| Ok(taken()));
        assert_eq!(heard, [("whole", 1), ("changes", 0), ("changes", 0)]);
    }

    #[test]
    fn all_is_told_at_once_where_changes_are_not_understood_or_not_taken() {
        let all = [("whole", 1), ("changes", 0), ("whole", 1)];
        let again = [("changes", 0), ("whole", 1)];
        let expected: Vec<_> = all.into_iter().chain(again).collect();
        assert_eq!(
            three_beats(|| Err(Status::unimplemented("an older version"))),
            expected
        );
        let not_known = || {
            Ok(HeartbeatResponse {
                known: true,
                report_all: true,
                ..HeartbeatResponse::default()
            })
        };
        assert_eq!(three_beats(not_known), expected);
    }

    #[test]
    fn after_an_answer_that_was_not_heard_all_is_told() {
        let heard = three_beats(|| Err(Status::deadline_exceeded("lost")));
        assert_eq!(heard, [("whole", 1), ("changes", 0), ("whole", 1)]);
    }

    #[test]
    fn configured_ones_stay_and_learnt_ones_are_replaced() {
        let mut mds = MdsClient::new(vec!["a:1".into()]);
        mds.learn(&["a:1".into(), "b:1".into()]);
        assert_eq!(mds.endpoints, ["a:1", "b:1"]);
        mds.current = 1;
        mds.learn(&["b:1".into(), "c:1".into()]);
        assert_eq!((mds.endpoints.len(), mds.current), (3, 1));
        mds.learn(&["c:1".into()]);
        assert_eq!(mds.endpoints, ["a:1", "c:1"]);
        assert_eq!(mds.current, 0, "the one that is gone is not asked again");
        mds.learn(&[]);
        assert_eq!(mds.endpoints.len(), 2);
        let many: Vec<String> = (0..100).map(|n| format!("m{n}:1")).collect();
        mds.learn(&many);
        assert_eq!(mds.endpoints.len(), ENDPOINTS_MAX);
    }

    #[test]
    fn a_leader_that_is_named_is_learnt() {
        let mut mds = MdsClient::new(vec!["a:1".into()]);
        assert_eq!(mds.place_of("z:1", 0), 1);
        assert_eq!(mds.place_of("z:1", 0), 1);
        assert_eq!(mds.endpoints, ["a:1", "z:1"]);
    }
}
