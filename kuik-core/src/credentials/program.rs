//! Runs a credential program: request on standard input, response on standard output.
//!
//! Time and output are limited; beyond that the program is killed. Its output contains secrets, so no error quotes it:
//! an error shows the command to run by hand.

use std::{
    ffi::OsString,
    fmt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::timeout,
};

use super::CredentialError;

/// The time limit of a program. A client that pulls waits at most 20 s in total.
const LIMIT: Duration = Duration::from_secs(10);
/// The maximum output of a program, in bytes.
const MAX_OUTPUT: u64 = 1 << 20;

/// A program and its arguments.
#[derive(Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) arguments: Vec<String>,
    /// Environment variables in addition to those of this process.
    pub(super) environment: Vec<(String, String)>,
    pub(super) limit: Duration,
}

/// The output and exit status of a program.
pub(super) struct Said {
    pub(super) status: ExitStatus,
    pub(super) output: Vec<u8>,
}

impl Program {
    pub(super) fn new(path: PathBuf, arguments: Vec<String>) -> Self {
        Self { path, arguments, environment: Vec::new(), limit: LIMIT }
    }

    /// Runs it once, with `input` as its input.
    pub(super) async fn ask(&self, input: &[u8]) -> Result<Said, CredentialError> {
        let mut child = Command::new(&self.path)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (OsString::from(name), value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.failed("failed to run", Some(error.into())))?;
        match timeout(self.limit, converse(&mut child, input)).await {
            Ok(Ok(said)) if said.output.len() as u64 > MAX_OUTPUT => {
                Err(self.failed(format_args!("it prints more than {MAX_OUTPUT} bytes"), None))
            }
            Ok(Ok(said)) => Ok(said),
            Ok(Err(error)) => Err(self.failed("failed to communicate", Some(error.into()))),
            Err(_) => Err(self.failed(format_args!("did not end within {:?}", self.limit), None)),
        }
    }

    /// Creates an error that shows the command.
    pub(super) fn failed(
        &self,
        problem: impl fmt::Display,
        cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> CredentialError {
        CredentialError::new(format!("{self}: {problem} (run it by hand to see its output)"), cause)
    }
}

async fn converse(child: &mut Child, input: &[u8]) -> std::io::Result<Said> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let asking = async {
        if let Some(mut stdin) = stdin {
            // A program may respond without reading its input.
            let _ = stdin.write_all(input).await;
        }
    };
    let listening = async {
        let mut output = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MAX_OUTPUT + 1).read_to_end(&mut output).await?;
        }
        Ok::<_, std::io::Error>(output)
    };
    let ((), output) = futures::future::join(asking, listening).await;
    let output = output?;
    if output.len() as u64 > MAX_OUTPUT {
        child.start_kill()?;
    }
    Ok(Said { status: child.wait().await?, output })
}

/// Prints the command without the values of its environment.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {argument}"))
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::new("/bin/sh".into(), vec!["-c".to_owned(), script.to_owned()])
    }

    #[tokio::test]
    async fn program_reads_input_and_prints_output() {
        let said = shell("read line; echo \"$line $X\"; exit 3");
        let said = Program { environment: vec![("X".to_owned(), "y".to_owned())], ..said };
        let said = said.ask(b"question\n").await.unwrap();
        assert_eq!((said.output.as_slice(), said.status.code()), (b"question y\n".as_slice(), Some(3)));
        let deaf = shell("exec 0<&-; echo answer").ask(&vec![b'x'; 1 << 20]).await.unwrap();
        assert_eq!(deaf.output, b"answer\n");
    }

    #[tokio::test]
    async fn program_is_limited_in_time_and_output() {
        let endless = Program { limit: Duration::from_millis(50), ..shell("exec sleep 1000") };
        let error = endless.ask(b"").await.err().unwrap().to_string();
        assert!(error.contains("did not end within 50ms"), "{error}");
        let error = shell("exec yes hunter2").ask(b"").await.err().unwrap().to_string();
        assert!(error.contains("prints more than"), "{error}");
        let missing = Program::new("/nowhere/plugin".into(), Vec::new()).ask(b"").await.err().unwrap();
        assert!(missing.to_string().starts_with("/nowhere/plugin: failed to run"), "{missing}");
    }
}
