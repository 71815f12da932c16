//! gRPC to whichever MDS leads.

use ogee_proto::service::chunkservers_client::ChunkserversClient;
use ogee_proto::service::{HeartbeatRequest, HeartbeatResponse, RegisterRequest, RegisterResponse};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Bound of one call.
const CALL: Duration = Duration::from_secs(2);
/// Bound of a connection attempt.
const CONNECT: Duration = Duration::from_secs(1);
/// Where an MDS that does not lead says who does.
const LEADER: &str = "ogee-mds-leader";

/// The MDSes, one of which is being talked to.
pub(super) struct MdsClient {
    endpoints: Vec<String>,
    current: usize,
    channel: Option<ChunkserversClient<Channel>>,
}

impl MdsClient {
    pub(super) const fn new(endpoints: Vec<String>) -> Self {
        Self {
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

    pub(super) async fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
    ) -> Result<HeartbeatResponse, Status> {
        let mut client = self.client()?;
        let answer = client.heartbeat(timed(request.clone())).await;
        self.settle(answer.map(tonic::Response::into_inner))
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
            let known = |leader| {
                self.endpoints
                    .iter()
                    .position(|endpoint| endpoint == leader)
            };
            let next = (self.current + 1) % self.endpoints.len().max(1);
            self.current = named.and_then(known).unwrap_or(next);
            self.channel = None;
        }
        answer
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL);
    request
}
