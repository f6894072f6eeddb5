//! The part of the HTTP client's interface that `worker-build` compiles against. Every request is refused.

use std::fmt;

/// Why a request was not made.
#[derive(Debug)]
pub struct Error;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this build of worker-build downloads nothing; run `npm run setup`, and build with `npm run build`")
    }
}

impl std::error::Error for Error {}

pub struct Agent;
pub struct AgentBuilder;
pub struct RequestBuilder;
pub struct Response;
pub struct Body;

impl Agent {
    pub fn config_builder() -> AgentBuilder {
        AgentBuilder
    }

    pub fn get(&self, _url: &str) -> RequestBuilder {
        RequestBuilder
    }
}

impl AgentBuilder {
    pub fn tls_config(self, _: tls::TlsConfig) -> Self {
        self
    }

    pub fn build(self) -> Self {
        self
    }

    pub fn new_agent(self) -> Agent {
        Agent
    }
}

impl RequestBuilder {
    pub fn call(self) -> Result<Response, Error> {
        Err(Error)
    }
}

impl Response {
    pub fn body_mut(&mut self) -> Body {
        Body
    }
}

impl Body {
    pub fn as_reader(&self) -> std::io::Empty {
        std::io::empty()
    }
}

pub mod tls {
    //! The names of the client's TLS settings; they have no effect.

    pub struct TlsConfig;

    pub enum TlsProvider {
        NativeTls,
    }

    pub enum RootCerts {
        PlatformVerifier,
    }

    impl TlsConfig {
        pub fn builder() -> Self {
            Self
        }

        pub fn provider(self, _: TlsProvider) -> Self {
            self
        }

        pub fn root_certs(self, _: RootCerts) -> Self {
            self
        }

        pub fn build(self) -> Self {
            self
        }
    }
}
