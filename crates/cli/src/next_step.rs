//! What to try when a command cannot be started or a file cannot be written: what the crates below only state.

use profiler_os::launch::LaunchError;

use crate::destination::DestinationError;
use crate::failure::Failure;

impl From<LaunchError> for Failure {
    fn from(error: LaunchError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            LaunchError::NotFound(name) if name.as_encoded_bytes().contains(&b'/') => {
                failure.with_advice("the command's name alone, which is looked for along PATH")
            }
            LaunchError::NotFound(_) => failure
                .with_advice("its full path, as PATH is not the same everywhere (under sudo, in services)"),
            LaunchError::NoInterpreter(_) => {
                failure.with_advice("the interpreter before it, as in: -- python3 script.py")
            }
            LaunchError::NotExecutable(_) => failure
                .with_advice("-- python3 and its path, if it is a script; chmod +x, if it is a program"),
            LaunchError::Other(..) => failure,
        }
    }
}

impl From<DestinationError> for Failure {
    fn from(error: DestinationError) -> Self {
        let failure = Failure::new(error.to_string());
        match error {
            DestinationError::IsFolder(folder) => {
                failure.with_advice(format!("-o {}", folder.join("profile.svg").display()))
            }
            DestinationError::NoFolder(_, folder) => {
                failure.with_advice(format!("mkdir -p {}", folder.display()))
            }
            DestinationError::ForeignLink { link, .. } => {
                let target = std::fs::read_link(&link).unwrap_or_default();
                failure.with_advice(format!("-o {}, if that is what you want to write", target.display()))
            }
            DestinationError::NoReader(_) => failure.with_advice("a reader of it, such as `cat`"),
            DestinationError::Refused(..) => failure.with_advice("-o in a folder that you may write to"),
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_cannot_be_started_or_written_says_what_to_try() {
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        let failures = [
            (Failure::from(LaunchError::NotFound("x".into())), "full path"),
            (LaunchError::NotFound("/no/x".into()).into(), "along PATH"),
            (LaunchError::NoInterpreter("x".into()).into(), "python3 script.py"),
            (LaunchError::NotExecutable("x".into()).into(), "chmod +x"),
            (DestinationError::IsFolder("/tmp".into()).into(), "-o /tmp/profile.svg"),
            (DestinationError::NoFolder("no/x.svg".into(), "no".into()).into(), "mkdir -p no"),
            (DestinationError::Refused("x.svg".into(), refused).into(), "may write"),
            (
                DestinationError::ForeignLink { path: "x".into(), link: "/proc/self/cwd".into(), uid: 7 }
                    .into(),
                "if that is what you want to write",
            ),
        ];
        for (failure, advice) in failures {
            assert!(failure.to_string().contains(&format!("try: {}", failure.advice()[0])));
            assert!(failure.advice()[0].contains(advice), "{failure}");
        }
    }
}
