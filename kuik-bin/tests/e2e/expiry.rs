//! An image that no pod uses gets a date, loses it when one does again, and goes when the date has passed: alone.

use super::{
    Image, Scenario, Upstream, json, kubectl,
    promise::{cached_image, kept, object_name},
    until,
};

/// Waits until an image has a date on which it goes, or has none.
async fn dated(image: &str, whether: bool) -> String {
    let name = object_name(image);
    until(&format!("{image} has a date: {whether}"), || async {
        let spec = cached_image(&name).await?["spec"].take();
        let date = spec["expiresAt"].as_str();
        if date.is_some() == whether {
            Ok(date.unwrap_or_default().to_owned())
        } else {
            Err(spec.to_string())
        }
    })
    .await
}

/// Waits until an unused image has an expiry date, sets one in the past, and waits until the image is deleted.
pub(crate) async fn expire(image: &str) {
    dated(image, true).await;
    let name = object_name(image);
    let past = r#"{"spec":{"expiresAt":"2020-01-01T00:00:00Z"}}"#;
    kubectl(&["patch", "cachedimage", &name, "--type=merge", "--patch", past]).await.unwrap();
    until("the image has gone", || async {
        match cached_image(&name).await {
            Err(error) if error.contains("NotFound") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn unused_image_expires_and_leaves_the_other_tags() {
    let scenario = Scenario::with("expiry", &["cachedImagesExpiryDelay=7"]).await;
    let mut upstream = Upstream::open(&scenario.place).await;
    let image = Image::marked(&scenario.place.busybox, "expiry");
    let goes = upstream.push(&image, "expiry/app:goes").await;
    let stays = upstream.push(&image, "expiry/app:stays").await;
    scenario.start(&scenario.pod("goes", &goes)).await;
    scenario.start(&scenario.pod("stays", &stays)).await;
    kept(&goes).await;
    kept(&stays).await;

    scenario.delete("goes").await;
    let date: jiff::Timestamp = dated(&goes, true).await.parse().unwrap();
    let days = date.duration_since(jiff::Timestamp::now()).as_secs_f64() / 86_400.0;
    assert!((6.9..=7.0).contains(&days), "{days} days");
    scenario.start(&scenario.pod("goes", &goes)).await;
    dated(&goes, false).await;
    scenario.delete("goes").await;
    dated(&goes, true).await;

    upstream.stop().await;
    expire(&goes).await;

    scenario.delete("stays").await;
    scenario.place.forget("expiry/app").await;
    scenario.start(&scenario.pod("stays", &stays)).await;
    super::apply(&[scenario.pod("goes", &goes)]).await.unwrap();
    until("a pod of the image that has gone finds it nowhere", || async {
        let pod = json(&["--namespace", &scenario.namespace, "pod/goes"]).await?;
        let reason = &pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"];
        assert_ne!(pod["status"]["phase"], "Running");
        if reason == "ErrImagePull" || reason == "ImagePullBackOff" {
            Ok(())
        } else {
            Err(pod["status"].to_string())
        }
    })
    .await;
}
