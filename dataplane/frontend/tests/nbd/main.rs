//! The NBD server over real sockets: a client of our own that can do wrong, and real clients.

mod client;
mod hostile;
mod protocol;
mod served;
mod socket;
mod tools;
mod torture;
