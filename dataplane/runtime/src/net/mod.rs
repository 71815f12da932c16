//! Stream sockets: TCP and Unix, one shape for both.

mod stream;
mod tcp;
mod unix;

pub use stream::{ReadHalf, WriteHalf};
pub use tcp::{TcpListener, TcpStream};
pub use unix::{PeerCredentials, UnixListener, UnixStream};
