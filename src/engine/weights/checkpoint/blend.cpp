#include "engine/weights/checkpoint/blend.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/weights/checkpoint/convert_dtype.h"
#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

class Blend {
 public:
  explicit Blend(std::vector<BlendTerm> terms) : terms_(std::move(terms)) {}

  bool operator()(const std::string& component, const std::string& name, const TensorView& stored,
                  std::vector<float>& values) {
    if (!is_convertible(stored.dtype)) return false;
    open(component);
    for (std::size_t i = 0; i < terms_.size(); ++i) {
      const TensorView& view = i == 0 ? stored : find(i, name, stored);
      const std::vector<float> other = to_floats(view.dtype, view.bytes);
      const auto weight = static_cast<float>(terms_[i].weight);
      if (i == 0) values.assign(other.size(), 0.0f);
      for (std::size_t k = 0; k < values.size(); ++k) values[k] += weight * other[k];
    }
    return true;
  }

 private:
  void open(const std::string& component) {
    if (component == component_) return;
    component_ = component;
    weights_.clear();
    for (const BlendTerm& term : terms_)
      weights_.push_back(term.model->weights(component).value_or_throw());
  }

  const TensorView& find(std::size_t i, const std::string& name, const TensorView& wanted) const {
    // transformers 4 and 5 differ in this prefix.
    constexpr std::string_view kPrefix = "text_model.";
    const std::string other =
        name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : std::string(kPrefix) + name;
    const TensorView* view = weights_[i]->find(name);
    if (view == nullptr && component_.starts_with("text_encoder")) view = weights_[i]->find(other);
    const std::string where = quote(terms_[i].model->root.string());
    if (view == nullptr) {
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("{}: {} has no tensor {}; only models of one architecture blend",
                                where, component_, quote(name)));
    }
    if (view->shape != wanted.shape || !is_convertible(view->dtype)) {
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("{}: {} has {} of {} [{}], want shape [{}]", where, component_,
                                quote(name), weights::name(view->dtype),
                                fmt::join(view->shape, ", "), fmt::join(wanted.shape, ", ")));
    }
    weights_[i]->prefetch(*view).value_or_throw();
    return *view;
  }

  std::vector<BlendTerm> terms_;
  std::string component_;
  std::vector<std::shared_ptr<const Weights>> weights_;  // of component_, one per term
};

}  // namespace

EditTensor blend(std::vector<BlendTerm> terms) {
  return Blend(std::move(terms));
}

}  // namespace limner::engine::weights
