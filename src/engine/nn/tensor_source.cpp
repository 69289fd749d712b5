#include "engine/nn/tensor_source.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>
#include <utility>

#include "base/suggest.h"
#include "engine/weights/finite.h"
#include "engine/weights/message_text.h"

namespace limner::engine::nn {
namespace {

using weights::DType;
using weights::TensorView;

// `who` below is a tensor as messages name it: "unet: tensor 'conv_in.weight'".
[[noreturn]] void refuse(const std::string& who, const std::string& what) {
  throw Failure(ErrorCode::kInvalidModel, who + " " + what);
}

at::ScalarType scalar_type(DType dtype, const std::string& who) {
  switch (dtype) {
    case DType::kF32:
      return at::kFloat;
    case DType::kF16:
      return at::kHalf;
    case DType::kBF16:
      return at::kBFloat16;
    default:
      throw Failure(ErrorCode::kUnsupported, who + " is stored as " +
                                                 std::string(weights::name(dtype)) +
                                                 "; this build reads F32, F16 and BF16");
  }
}

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i)
    text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

bool same_but_for_trailing_ones(at::IntArrayRef stored, at::IntArrayRef wanted) {
  if (stored.size() < wanted.size()) return false;
  const at::IntArrayRef tail = stored.slice(wanted.size());
  return stored.slice(0, wanted.size()) == wanted &&
         std::all_of(tail.begin(), tail.end(), [](std::int64_t size) { return size == 1; });
}

// Brings the tensor's pages in and looks at its values, each thread at a part: a large model has
// more than a million pages to be mapped.
void check_finite(const weights::Weights& weights, const TensorView& view, const std::string& who) {
  // Elements; below, starting threads costs more than it saves.
  constexpr std::int64_t kGrain = 1 << 20;
  const std::size_t element = weights::bits(view.dtype) / 8;
  std::atomic<bool> finite = true;
  at::parallel_for(0, static_cast<std::int64_t>(view.bytes.size() / element), kGrain,
                   [&](std::int64_t begin, std::int64_t end) {
                     const std::size_t from = static_cast<std::size_t>(begin) * element;
                     const std::size_t size = static_cast<std::size_t>(end - begin) * element;
                     const TensorView part{view.dtype, {}, view.bytes.subspan(from, size)};
                     weights.prefetch(part).value_or_throw();
                     if (!weights::all_finite(part.dtype, part.bytes)) finite = false;
                   });
  if (!finite) refuse(who, "holds a NaN or an infinity: the file is damaged, or the training was");
}

// [out, in, positions] -> [out, positions, in] of elements of one width. One output channel fits
// the first cache, which makes this several times as fast as the general strided copy.
template <typename Bits>
void swap_channels_and_positions(const void* from, void* to, std::int64_t out, std::int64_t in,
                                 std::int64_t positions) {
  const std::int64_t grain = std::max<std::int64_t>(
      1, (std::int64_t{1} << 18) / std::max<std::int64_t>(1, in * positions));
  at::parallel_for(0, out, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t o = begin; o < end; ++o) {
      const Bits* source = static_cast<const Bits*>(from) + o * in * positions;
      Bits* target = static_cast<Bits*>(to) + o * in * positions;
      for (std::int64_t p = 0; p < positions; ++p) {
        for (std::int64_t i = 0; i < in; ++i) target[p * in + i] = source[i * positions + p];
      }
    }
  });
}

// `weight` [out, in, kh, kw], contiguous, on the CPU.
at::Tensor to_channels_last(const at::Tensor& weight) {
  if (weight.dim() != 4 || weight.is_contiguous(at::MemoryFormat::ChannelsLast)) return weight;
  at::Tensor result =
      at::empty(weight.sizes(), weight.options().memory_format(at::MemoryFormat::ChannelsLast));
  const auto swap = weight.element_size() == 2 ? swap_channels_and_positions<std::uint16_t>
                                               : swap_channels_and_positions<std::uint32_t>;
  swap(weight.const_data_ptr(), result.mutable_data_ptr(), weight.size(0), weight.size(1),
       weight.size(2) * weight.size(3));
  return result;
}

}  // namespace

at::Tensor place_matrix(const at::Tensor& stored, const Placement& placement) {
  return to_channels_last(stored.to(placement.storage)).to(placement.device);
}

struct TensorSource::Ledger {
  std::shared_ptr<const weights::Weights> weights;
  Placement placement;
  std::string component;                     // "unet: ", or empty
  std::set<std::string, std::less<>> known;  // taken or skipped

  std::string described(const std::string& name) const {
    return component + "tensor " + weights::quote(name);
  }
  const TensorView& look_up(const std::string& name, at::IntArrayRef shape);
  // The tensor, its values checked: over the map, which it keeps alive, or an aligned copy.
  at::Tensor open(const std::string& name, at::IntArrayRef shape, const TensorView& view) const;
};

const TensorView& TensorSource::Ledger::look_up(const std::string& name, at::IntArrayRef shape) {
  const TensorView* view = weights->find(name);
  if (!view) refuse(described(name), "is missing" + did_you_mean(name, weights->names()));
  if (!same_but_for_trailing_ones(view->shape, shape)) {
    refuse(described(name), "has shape " + shape_text(view->shape) + ", want " + shape_text(shape));
  }
  known.insert(name);
  return *view;
}

at::Tensor TensorSource::Ledger::open(const std::string& name, at::IntArrayRef shape,
                                      const TensorView& view) const {
  const at::ScalarType dtype = scalar_type(view.dtype, described(name));
  check_finite(*weights, view, described(name));
  if (reinterpret_cast<std::uintptr_t>(view.bytes.data()) % (weights::bits(view.dtype) / 8) != 0) {
    at::Tensor aligned = at::empty(shape, dtype);
    if (!view.bytes.empty())
      std::memcpy(aligned.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    return aligned;
  }
  // torch has no read-only tensors; weights are never written to, and the map would refuse it.
  void* data = const_cast<std::byte*>(view.bytes.data());
  return at::from_blob(data, shape, [keep = weights](void*) {}, at::TensorOptions().dtype(dtype));
}

TensorSource::TensorSource(std::shared_ptr<const weights::Weights> weights, Placement placement)
    : ledger_(std::make_shared<Ledger>()) {
  ledger_->weights = std::move(weights);
  ledger_->placement = placement;
  const std::vector<std::filesystem::path> files = ledger_->weights->files();
  if (!files.empty()) ledger_->component = files.front().parent_path().filename().string() + ": ";
}

TensorSource::TensorSource(std::shared_ptr<Ledger> ledger, std::string prefix)
    : ledger_(std::move(ledger)), prefix_(std::move(prefix)) {}

std::string TensorSource::name_of(std::string_view name) const {
  if (prefix_.empty()) return std::string(name);
  return name.empty() ? prefix_ : prefix_ + "." + std::string(name);
}

TensorSource TensorSource::at(std::string_view child) const {
  return {ledger_, name_of(child)};
}
TensorSource TensorSource::at(std::size_t index) const {
  return {ledger_, name_of(std::to_string(index))};
}

bool TensorSource::has(std::string_view name) const {
  return ledger_->weights->find(name_of(name)) != nullptr;
}

at::Tensor TensorSource::take(std::string_view name, at::IntArrayRef shape) const {
  const std::string full = name_of(name);
  const TensorView& view = ledger_->look_up(full, shape);
  const at::Tensor stored = ledger_->open(full, shape, view);
  const at::Tensor placed = stored.to(placement().device, placement().storage);
  if (placed.data_ptr() != view.bytes.data()) ledger_->weights->release(view);
  return placed;
}

at::Tensor TensorSource::take_channels_last(std::string_view name, at::IntArrayRef shape) const {
  const std::string full = name_of(name);
  const TensorView& view = ledger_->look_up(full, shape);
  const at::Tensor stored = ledger_->open(full, shape, view);
  const at::Tensor placed = place_matrix(stored, placement());
  if (placed.data_ptr() != view.bytes.data()) ledger_->weights->release(view);
  return placed;
}

at::Tensor TensorSource::take_stored(std::string_view name, at::IntArrayRef shape) const {
  const std::string full = name_of(name);
  return ledger_->open(full, shape, ledger_->look_up(full, shape));
}

at::Tensor TensorSource::take_small(std::string_view name, at::IntArrayRef shape) const {
  const std::string full = name_of(name);
  const TensorView& view = ledger_->look_up(full, shape);
  const at::Tensor stored = ledger_->open(full, shape, view);
  // Always a copy: small tensors lie among large ones whose pages are released.
  const at::Tensor placed =
      stored.to(placement().device, placement().compute, /*non_blocking=*/false, /*copy=*/true);
  ledger_->weights->release(view);
  return placed;
}

void TensorSource::release(std::string_view name) const {
  if (const TensorView* view = ledger_->weights->find(name_of(name)))
    ledger_->weights->release(*view);
}

void TensorSource::skip(std::string_view name) const {
  ledger_->known.insert(name_of(name));
}

void TensorSource::finish() const {
  constexpr std::size_t kShown = 5;
  std::vector<std::string> left_over;
  for (std::string& name : ledger_->weights->names()) {
    if (!ledger_->known.contains(name)) left_over.push_back(std::move(name));
  }
  if (left_over.empty()) return;
  std::string list;
  for (std::size_t i = 0; i < std::min(kShown, left_over.size()); ++i)
    list += (i > 0 ? ", " : "") + left_over[i];
  if (left_over.size() > kShown) list += ", ...";
  throw Failure(ErrorCode::kInvalidModel,
                ledger_->component + std::to_string(left_over.size()) +
                    (left_over.size() == 1 ? " tensor" : " tensors") +
                    " left over that the config has no place for: " + list);
}

const Placement& TensorSource::placement() const {
  return ledger_->placement;
}

}  // namespace limner::engine::nn
