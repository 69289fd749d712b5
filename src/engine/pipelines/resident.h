// Resident: a network that may leave the device between its uses.
#pragma once

#include <functional>
#include <optional>
#include <utility>

namespace limner::engine::pipelines {

// Built at once, so that a broken model is known at load; when it `leaves`, built again from the
// file's map at the next get(). Used by one thread at a time.
template <typename Model>
class Resident {
 public:
  Resident(std::function<Model()> build, bool leaves)
      : build_(std::move(build)), leaves_(leaves), model_(build_()) {}

  const Model& get() const {
    if (!model_) model_.emplace(build_());
    return *model_;
  }
  // What `read` says of the network, which leaves afterwards.
  template <typename Read>
  auto read(Read read) const {
    auto answer = read(get());
    leave();
    return answer;
  }
  void leave() const {
    if (leaves_) model_.reset();
  }

 private:
  std::function<Model()> build_;
  bool leaves_;
  mutable std::optional<Model> model_;
};

}  // namespace limner::engine::pipelines
