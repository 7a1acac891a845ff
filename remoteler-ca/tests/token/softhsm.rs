//! A SoftHSM token of a test's own. The module reads its settings from the environment when it is loaded, once a process, so each test that
//! uses one runs its body in a process of its own.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use remoteler_ca::{Pkcs11Config, Pkcs11Token, TokenChoice, TokenError};
use remoteler_core::Secret;

/// Label of the token.
pub(crate) const LABEL: &str = "ca of test";
/// Its user's PIN.
pub(crate) const PIN: &str = "314159";
/// Set in the process that runs the body of a test.
const DIRECTORY: &str = "REMOTELER_TEST_TOKEN_DIR";

/// Runs `body` with a fresh token, in a process of its own; `test` is the full name of the calling test.
pub(crate) fn with_token(test: &str, body: impl FnOnce(&SoftHsm)) {
    if let Some(directory) = env::var_os(DIRECTORY) {
        return body(&SoftHsm { directory: directory.into() });
    }
    let Some(module) = module() else {
        let required = env::var_os("REMOTELER_FULL_CHECK").is_some() || env::var_os("CI").is_some();
        assert!(!required, "softhsm2 is not installed");
        eprintln!("SKIPPED: softhsm2 is not installed");
        return;
    };
    drop(module);
    let directory = tempfile::tempdir().unwrap();
    let hsm = SoftHsm { directory: directory.path().to_owned() };
    std::fs::create_dir(directory.path().join("tokens")).unwrap();
    let config = format!("directories.tokendir = {}/tokens\nobjectstore.backend = file\n", directory.path().display());
    std::fs::write(hsm.settings(), config).unwrap();
    let init = ["--init-token", "--free", "--label", LABEL, "--so-pin", "27182818", "--pin", PIN];
    let made = Command::new("softhsm2-util").env("SOFTHSM2_CONF", hsm.settings()).args(init).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let ran = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory.path())
        .env("SOFTHSM2_CONF", hsm.settings())
        .output()
        .unwrap();
    let said = [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(ran.status.success() && said.contains("1 passed"), "{}: {said}", ran.status);
}

/// The token.
pub(crate) struct SoftHsm {
    directory: PathBuf,
}

impl SoftHsm {
    fn settings(&self) -> PathBuf {
        self.directory.join("softhsm2.conf")
    }

    /// Where its objects lie.
    pub(crate) fn objects(&self) -> PathBuf {
        self.directory.join("tokens")
    }

    pub(crate) fn open(&self) -> Pkcs11Token {
        self.open_as(TokenChoice::Label(LABEL.into()), PIN).unwrap()
    }

    pub(crate) fn open_as(&self, token: TokenChoice, pin: &str) -> Result<Pkcs11Token, TokenError> {
        Pkcs11Token::open(Pkcs11Config { module: module().unwrap(), token, pin: Secret::new(pin) })
    }

    /// Runs OpenSC's tool, which knows nothing of us.
    pub(crate) fn tool(&self, arguments: &[&str]) -> String {
        let ran = Command::new("pkcs11-tool")
            .arg("--module")
            .arg(module().unwrap())
            .args(["--token-label", LABEL])
            .args(arguments)
            .env("SOFTHSM2_CONF", self.settings())
            .output()
            .unwrap();
        [ran.stdout, ran.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat()
    }
}

/// Where Debian puts the module.
pub(crate) fn module() -> Option<PathBuf> {
    let module = Path::new("/usr/lib/softhsm/libsofthsm2.so");
    let tools = ["softhsm2-util", "pkcs11-tool"].iter().all(|tool| Path::new("/usr/bin").join(tool).is_file());
    (module.is_file() && tools).then(|| module.to_owned())
}
