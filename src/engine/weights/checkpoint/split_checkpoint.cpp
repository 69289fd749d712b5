#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "engine/weights/checkpoint/name_table.h"
#include "engine/weights/checkpoint/single_file.h"
#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

// Stable Diffusion 2 was trained on the state before the last layer; checkpoints keep all 24,
// diffusers the 23 in use.
constexpr const char* kUnusedSd2Layer = "transformer.resblocks.23.";

// Below a network's prefix, and of no use to it.
bool is_ballast(const std::string& name, bool sd2_tower) {
  return name == "logit_scale" || name.ends_with("position_ids") ||
         (sd2_tower && (name == "text_projection" || name.starts_with(kUnusedSd2Layer)));
}

// The tensors of one network in diffusers' names and shapes.
class Part {
 public:
  Part(std::shared_ptr<const Weights> source, std::string where)
      : source_(std::move(source)), where_(std::move(where)) {}

  void add(const std::string& stored, const RenamedTensor& renamed) {
    const TensorView& view = *source_->find(stored);
    switch (renamed.form) {
      case TensorForm::kSame:
        return put(renamed.name, view);
      case TensorForm::kSqueezed:
        return put(renamed.name, squeezed(stored, view));
      case TensorForm::kTransposed:
        return put(renamed.name, transposed(stored, view));
      case TensorForm::kThirds:
        return add_thirds(stored, renamed.name, view);
    }
  }

  std::shared_ptr<const Weights> finish() {
    return Weights::of_views(source_, std::move(views_), std::move(made_));
  }

 private:
  [[noreturn]] void fail(const std::string& stored, const TensorView& view, const char* wanted) {
    throw Failure(ErrorCode::kInvalidModel,
                  fmt::format("{}: tensor {} wants {}, has shape [{}]", where_, quote(stored),
                              wanted, fmt::join(view.shape, ", ")));
  }

  void put(const std::string& name, TensorView view) {
    if (!views_.emplace(name, std::move(view)).second) {
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("{}: two tensors are both {}", where_, quote(name)));
    }
  }

  TensorView squeezed(const std::string& stored, TensorView view) {
    while (view.shape.size() > 2 && view.shape.back() == 1) view.shape.pop_back();
    if (view.shape.size() != 2) fail(stored, view, "a matrix or a 1x1 convolution");
    return view;
  }

  TensorView transposed(const std::string& stored, const TensorView& view) {
    if (view.shape.size() != 2 || bits(view.dtype) % 8 != 0) fail(stored, view, "a matrix");
    const auto rows = static_cast<std::size_t>(view.shape[0]),
               columns = static_cast<std::size_t>(view.shape[1]), size = bits(view.dtype) / 8;
    source_->prefetch(view).value_or_throw();
    std::vector<std::byte>& bytes = made_.emplace_back(view.bytes.size());
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < columns; ++c) {
        std::memcpy(bytes.data() + (c * rows + r) * size,
                    view.bytes.data() + (r * columns + c) * size, size);
      }
    }
    return {view.dtype, {view.shape[1], view.shape[0]}, bytes};
  }

  void add_thirds(const std::string& stored, const std::string& query, const TensorView& view) {
    if (view.shape.empty() || view.shape[0] % 3 != 0)
      fail(stored, view, "a first side divisible by three");
    const std::size_t third = view.bytes.size() / 3;
    std::vector<std::int64_t> shape = view.shape;
    shape[0] /= 3;
    std::size_t begin = 0;
    for (const std::string& name : thirds_of(query)) {
      put(name, {view.dtype, shape, view.bytes.subspan(begin, third)});
      begin += third;
    }
  }

  std::shared_ptr<const Weights> source_;
  std::string where_;
  std::map<std::string, TensorView, std::less<>> views_;
  std::vector<std::vector<std::byte>> made_;
};

struct NetworkPlace {
  std::string component;
  std::string prefix;
  NameTable table;
  bool sd2_tower = false;
};

NameSet below(const std::vector<std::string>& names, const std::string& prefix) {
  NameSet found;
  for (const std::string& name : names) {
    if (name.starts_with(prefix)) found.insert(name.substr(prefix.size()));
  }
  return found;
}

std::vector<NetworkPlace> places(const std::vector<std::string>& names,
                                 const CheckpointLayout& layout) {
  std::vector<NetworkPlace> found;
  for (const TowerPlace& tower : layout.towers) {
    const NameSet inside = below(names, tower.prefix);
    found.push_back({tower.component, tower.prefix,
                     tower.open_clip ? open_clip_names(inside) : clip_names(inside),
                     layout.family == CheckpointFamily::kSd2});
  }
  found.push_back({"vae", layout.vae_prefix, vae_names(below(names, layout.vae_prefix))});
  found.push_back({"unet", layout.unet_prefix, unet_names(below(names, layout.unet_prefix))});
  return found;
}

// How model_ema. spells a tensor of the UNet: without "model." and without dots.
std::string ema_name(const std::string& prefix, const std::string& name) {
  std::string full = prefix.starts_with("model.") ? prefix.substr(6) + name : prefix + name;
  std::erase(full, '.');
  // The dot between "diffusion_model" and the rest is one of those that go.
  return "model_ema." + full;
}

// A prefix of "" (a UNet without any) would claim everything: what other parts own is not its.
bool is_of_the_unet(const std::string& name) {
  static const std::vector<std::string> kTops = {"input_blocks.", "middle_block.", "output_blocks.",
                                                 "time_embed.",   "label_emb.",    "out."};
  return std::any_of(kTops.begin(), kTops.end(),
                     [&](const std::string& top) { return name.starts_with(top); });
}

}  // namespace

Components split_checkpoint(const std::shared_ptr<const Weights>& weights,
                            const CheckpointLayout& layout, bool ema, const std::string& where,
                            std::vector<std::string>& left_over) {
  if (ema && !layout.has_ema) {
    throw Failure(ErrorCode::kInvalidArgument,
                  where + ": has no averaged weights (model_ema.); leave --ema out");
  }
  const std::vector<std::string> names = weights->names();
  const std::vector<NetworkPlace> networks = places(names, layout);
  std::map<std::string, Part> parts;
  for (const NetworkPlace& network : networks)
    parts.emplace(network.component, Part(weights, where));
  for (const std::string& name : names) {
    const auto network = std::find_if(networks.begin(), networks.end(), [&](const auto& place) {
      return name.starts_with(place.prefix) && (!place.prefix.empty() || is_of_the_unet(name));
    });
    if (network == networks.end()) {
      left_over.push_back(name);
      continue;
    }
    const std::string inside = name.substr(network->prefix.size());
    if (is_ballast(inside, network->sd2_tower)) {
      left_over.push_back(name);
      continue;
    }
    const auto renamed = network->table.to_diffusers(inside);
    if (!renamed) {
      throw Failure(ErrorCode::kInvalidModel,
                    fmt::format("{}: tensor {} belongs to no {} known here", where, quote(name),
                                network->component));
    }
    std::string stored = name;
    if (ema && network->component == "unet") {
      stored = ema_name(network->prefix, inside);
      if (weights->find(stored) == nullptr) {
        throw Failure(ErrorCode::kInvalidModel, fmt::format("{}: has no averaged {} beside {}",
                                                            where, quote(stored), quote(name)));
      }
    }
    parts.at(network->component).add(stored, *renamed);
  }
  Components components;
  for (auto& [component, part] : parts) components.emplace(component, part.finish());
  return components;
}

}  // namespace limner::engine::weights
