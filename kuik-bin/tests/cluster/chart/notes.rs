//! Installation notes of the chart: the objects and labels in them exist.

use kuik_core::rewrite::MANAGED_LABEL;
use kuik_testkit::real::{InstallSource, run};

use super::{chart, objects, template};

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn notes_list_what_blocks_an_uninstallation() {
    for mode in ["webhook", "containerd", "both"] {
        let (value, chart) = (format!("--set=proxy.mode={mode}"), chart());
        let name = "kube-image-keeper";
        let arguments = ["install", name, &chart, "--namespace", "kuik-system", "--dry-run=client", &value];
        let said = run("helm-4", InstallSource::BuiltFromGo, arguments).await.unwrap();
        let (_, notes) = said.split_once("NOTES:\n").unwrap();
        let deleted = notes
            .lines()
            .find_map(|line| line.trim().strip_prefix("kubectl delete mutatingwebhookconfiguration "));
        let deleted = deleted.map(|name| format!("MutatingWebhookConfiguration/{name}"));
        let there = objects(&template("helm-4", &[&value]).await.unwrap());
        let webhook = there.into_iter().find(|name| name.starts_with("MutatingWebhookConfiguration/"));
        assert_eq!((deleted, mode != "containerd"), (webhook.clone(), webhook.is_some()), "{mode}");
        assert_eq!(
            notes.contains(&format!("--selector={MANAGED_LABEL}=true")),
            mode != "containerd",
            "{mode}"
        );
        assert_eq!(notes.contains("configure-containerd --certs-dir"), mode != "webhook", "{mode}");
    }
}
