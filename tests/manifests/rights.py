"""All that ServiceAccounts of ours may do in their namespace; an account that is not here may do nothing."""

RIGHTS = {  # account -> (group, resource) -> verbs
    "recommender": {
        ("serving.kserve.io", "inferenceservices"): {"get", "list", "watch"},
        ("gateway.networking.k8s.io", "httproutes"): {"get", "list"},
    },
    "webhook": {("", "configmaps"): {"get", "patch"}},
    "rollout": {
        ("serving.kserve.io", "inferenceservices"): {"get", "list", "watch", "patch"},
        ("gateway.networking.k8s.io", "httproutes"): {"get", "list"},
        ("", "configmaps"): {"get", "create", "patch", "update"},
        ("", "events"): {"create", "patch"},
        ("events.k8s.io", "events"): {"create", "patch"},
    },
}
