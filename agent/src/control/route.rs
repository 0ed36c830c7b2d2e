//! The requests that the socket knows.

/// A request. The daemon's router is made of these and of nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// How the daemon and its transfers stand.
    Status,
    /// All masters.
    Masters,
    /// One master.
    Master,
    /// Removes a master.
    Remove,
    /// What the next release of a name has to be like.
    NextRelease,
    /// Takes a signed release.
    PostRelease,
    /// Takes a file in as a master.
    Publish,
    /// Fetches a master.
    Fetch,
    /// Reads a master again.
    Verify,
    /// Removes masters that nothing needs.
    Gc,
    /// Tries the network for multicast.
    ProbeMulticast,
}

impl Route {
    /// All of them.
    pub const ALL: [Route; 11] = [
        Route::Status,
        Route::Masters,
        Route::Master,
        Route::Remove,
        Route::NextRelease,
        Route::PostRelease,
        Route::Publish,
        Route::Fetch,
        Route::Verify,
        Route::Gc,
        Route::ProbeMulticast,
    ];

    /// Method and path; a part of the path in braces stands for any text.
    pub const fn method_and_path(self) -> (&'static str, &'static str) {
        match self {
            Route::Status => ("GET", "/v1/status"),
            Route::Masters => ("GET", "/v1/masters"),
            Route::Master => ("GET", "/v1/masters/{master}"),
            Route::Remove => ("DELETE", "/v1/masters/{master}"),
            Route::NextRelease => ("GET", "/v1/releases/{name}"),
            Route::PostRelease => ("POST", "/v1/releases"),
            Route::Publish => ("POST", "/v1/publish"),
            Route::Fetch => ("POST", "/v1/fetch"),
            Route::Verify => ("POST", "/v1/verify"),
            Route::Gc => ("POST", "/v1/gc"),
            Route::ProbeMulticast => ("POST", "/v1/multicast/probe"),
        }
    }
}
