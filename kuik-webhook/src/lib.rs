//! Rewrites the images of pods, as a pure function over a pod and as an admission webhook.
