//! What the binary carries: a small model for each task.

use ferroyolo::Task;

use crate::error::{Error, Result};

/// A model that is built in.
pub struct BuiltIn {
    /// What it is for.
    pub task: Task,
    /// Shown in place of a path.
    pub name: &'static str,
    /// The model file.
    pub bytes: &'static [u8],
}

const MODELS: [BuiltIn; 7] = [
    BuiltIn { task: Task::Detect, name: "demo", bytes: include_bytes!("../assets/demo.safetensors") },
    BuiltIn {
        task: Task::Segment,
        name: "demo-segment",
        bytes: include_bytes!("../assets/segment.safetensors"),
    },
    BuiltIn { task: Task::Pose, name: "demo-pose", bytes: include_bytes!("../assets/pose.safetensors") },
    BuiltIn { task: Task::Obb, name: "demo-obb", bytes: include_bytes!("../assets/obb.safetensors") },
    BuiltIn {
        task: Task::Classify,
        name: "demo-classify",
        bytes: include_bytes!("../assets/classify.safetensors"),
    },
    BuiltIn {
        task: Task::Semantic,
        name: "demo-semantic",
        bytes: include_bytes!("../assets/semantic.safetensors"),
    },
    BuiltIn { task: Task::Depth, name: "demo-depth", bytes: include_bytes!("../assets/depth.safetensors") },
];

/// The model for `task`, or the one for boxes.
pub fn model(task: Option<Task>) -> Result<&'static BuiltIn> {
    let task = task.unwrap_or(Task::Detect);
    MODELS.iter().find(|model| model.task == task).ok_or_else(|| {
        let known: Vec<_> = MODELS.iter().map(|model| model.task.as_str()).collect();
        Error::Usage(format!(
            "--task {task}: models are built in for {}; give another with -m",
            known.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use ferroyolo::{Model, ModelOptions};

    use super::*;

    #[test]
    fn built_in_models_are_for_their_tasks() {
        for built_in in &MODELS {
            let model = Model::from_bytes(built_in.name, built_in.bytes, &ModelOptions::default()).unwrap();
            assert_eq!(model.task(), built_in.task, "{}", built_in.name);
            assert!(
                built_in.bytes.len() <= 1_500_000,
                "{} has {} bytes",
                built_in.name,
                built_in.bytes.len()
            );
        }
        assert_eq!(model(None).unwrap().task, Task::Detect);
        assert_eq!(model(Some(Task::Depth)).unwrap().name, "demo-depth");
    }
}
