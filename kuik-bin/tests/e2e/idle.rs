//! Idle resource usage, as shown by `kubectl top pods`, from the kubelets' statistics.

use serde_json::Value;

use super::{NAMESPACE, Scenario, Upstream, json, kubectl, promise::start_and_keep, until};

/// Resource usage of a pod, in millicores and MiB.
struct Use {
    pod: String,
    millicores: f64,
    mebibytes: f64,
}

/// The pods of kuik on a node, where its kubelet has figures for all of them.
async fn uses(node: &str, pods: usize) -> Result<Vec<Use>, String> {
    let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    let summary: Value =
        serde_json::from_str(&kubectl(&["get", "--raw", &path]).await?).map_err(|error| error.to_string())?;
    let all = summary["pods"].as_array().into_iter().flatten();
    let ours = all.filter(|pod| pod["podRef"]["namespace"] == NAMESPACE);
    let uses: Vec<_> = ours
        .filter_map(|pod| {
            Some(Use {
                pod: pod["podRef"]["name"].as_str()?.to_owned(),
                millicores: pod["cpu"]["usageNanoCores"].as_f64()? / 1e6,
                mebibytes: pod["memory"]["workingSetBytes"].as_f64()? / f64::from(1 << 20),
            })
        })
        .collect();
    if uses.len() == pods { Ok(uses) } else { Err(summary.to_string()) }
}

#[tokio::test]
async fn idle_components_use_almost_no_resources() {
    let scenario = Scenario::begin("idle").await;
    let upstream = Upstream::open(&scenario.place).await;
    start_and_keep(&scenario, &upstream, "idle").await;

    let pods = json(&["pods", "--namespace", NAMESPACE]).await.unwrap();
    let pods = pods["items"].as_array().unwrap();
    let node = pods[0]["spec"]["nodeName"].as_str().unwrap();
    // Earlier activity is part of the kubelet's averages for a while.
    let uses = until("every pod of kuik uses less than a twentieth of a core", || async {
        let uses = uses(node, pods.len()).await?;
        let calm = uses.iter().all(|it| it.millicores < 50.0);
        let seen = |it: &Use| format!("{}: {:.1} m, {:.1} MiB", it.pod, it.millicores, it.mebibytes);
        if calm { Ok(uses) } else { Err(uses.iter().map(seen).collect::<Vec<_>>().join("; ")) }
    })
    .await;
    println!("\n| pod | CPU | memory |\n|---|---|---|");
    for Use { pod, millicores, mebibytes } in uses {
        println!("| {pod} | {millicores:.0} m | {mebibytes:.0} MiB |");
        assert!(mebibytes < 64.0, "{pod} has {mebibytes:.1} MiB");
    }
}
