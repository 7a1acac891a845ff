//! How bytes get from one machine of a cluster to another: mutual TLS with certificates that core verifies, the one-port
//! listener that routes by ALPN and SNI, the link that carries many streams over one connection, reverse-tunnel agents and
//! their server, and the router that turns a target into a stream.
//!
//! Nothing here decides what a user may do. The layers of a link, each a pure machine below a thin shell:
//! TLS 1.3 → [`Sequence`] (sequenced, acknowledged frames) → [`Mux`] (streams with credit windows) → [`MuxStream`].

mod agent;
mod backoff;
mod carrier;
mod connect;
mod connection;
mod dial;
mod dialer;
mod frame;
mod handshake;
mod http_proxy;
mod link;
mod listener;
mod live;
mod mux;
mod notice;
mod origin;
mod passing;
mod pool;
mod read_ahead;
mod registration;
mod relay;
mod replay;
mod resume;
mod router;
mod server;
mod service;
mod stream;
#[cfg(feature = "testkit")]
pub mod testkit;
mod tls;
mod ways;
mod wire;

pub use agent::{
    Agent, AgentConfig, AgentCounters, AgentError, AgentState, AuthCarrier, AuthLinks, AuthStream, ProxyLink,
};
pub use backoff::Backoff;
pub use carrier::{CARRIER_PATH, WebSocketOctets, accept_carrier, carried};
pub use connect::{ConnectError, connect_tcp, connect_tls, tls_over, watch_silence};
pub use connection::{CloseReason, IncomingStream, Link, LinkCounters, LinkState, MuxStream};
pub use dial::{
    DIAL_VERSION, DialCode, DialHeader, DialHeaderError, DialReply, MAX_DIAL_LEN, Target, TargetKind, TargetName,
    TargetNameError, read_dial, read_dial_reply, write_dial, write_dial_reply,
};
pub use dialer::{Dialer, DirectDialer};
pub use frame::{DATA_LEN, FrameError, FrameType, HEADER_LEN, Header, MAX_PAYLOAD_LEN, MAX_REASON_LEN, Payload, Scope};
pub use handshake::{BODY_LEN, HandshakeError, Hello, MAGIC, MAJOR, MAX_BODY_LEN, METERED, MINOR, PROMPT, RESUME};
pub use http_proxy::{HttpProxyError, ProxyDialer};
pub use link::{
    ACK_EVERY, ACK_WITHIN, ASK_WITHIN, DOUBT_AFTER, Keepalive, LEAST_UNDER_WAY, LinkError, PROMPT_EVERY, PROMPT_LEAST,
    SOONEST, Sequence,
};
pub use listener::{
    ALPN_AUTH, ALPN_AUTH_RELAY, ALPN_SSH, ALPN_TUNNEL, Admission, AdmissionLimits, Admissions, Connection, Greeting,
    HelloError, MAX_CLIENT_HELLO, OnePort, Refusal, Route, RouteError, RouteHandler, Routed, Serve, Socket,
    read_client_hello, route, serve, until_somebody,
};
pub use live::enforce;
pub use mux::budget::TABLE as PEER_BUDGETS;
pub use mux::error::{Code, OpenError, ProtocolError};
pub use mux::limits::Limits;
pub use mux::outbox::Outbox;
pub use mux::stream::StreamError;
pub use mux::{Mux, MuxEvent, ReadOutcome, Side};
pub use notice::{MAX_NOTICE_LEN, MAX_PROXIES, ProxyAddress};
pub use origin::{MAX_ORIGIN_LEN, Origin, read_origin, write_origin};
pub use passing::{NoOthers, OtherProxies, PeerProxies};
pub use read_ahead::ReadAhead;
pub use registration::{
    AUTH_METADATA, MAX_AUTH_STREAMS, MAX_REGISTRATION_LEN, Offer, OfferError, REGISTRATION_METADATA,
};
pub use relay::{Relayed, relay};
pub use replay::ReplayBudget;
pub use resume::{
    Channel, EXPORT_CHANNEL, EXPORT_KEYS, LinkId, MAX_RESUME_BODY_LEN, RESUME_BODY_LEN, RESUME_MAGIC, ResumeError,
    ResumeKeys, ResumeRequest,
};
pub use router::dialling::Dialled;
pub use router::{AttachedAgent, Attachment, DialError, Inventory, Place, Router, StreamService};
pub use server::{AgentEvents, AgentSession, AuthStreams, EarlierProcess, RegistrationError, TunnelServer};
pub use service::{
    ALPN_SERVICE, Caller, ListenError, ServiceAddress, ServiceConnection, ServiceDialError, ServiceDialer,
    ServiceListener, ServiceName, ServiceNameError, Services,
};
pub use stream::{BoxedStream, ByteStream, Replayed};
pub use tls::{
    ClientAuth, ClientTls, ExportsKeys, FirstContact, FirstContactError, PeerError, PolicyTrust, ServerTls,
    SharedTlsIdentity, TlsConfigError, TlsIdentity, TlsIdentityError, TrustSource, handshake_failure,
    is_certificate_failure, judged_later, verified_peer, web_server_config,
};
pub use ways::{NoMemory, Way, WayMemory, Ways};
pub use wire::Wire;
