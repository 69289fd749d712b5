#include "engine/weights/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

using nlohmann::json;

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Failure(ErrorCode::kInvalidModel, where + ": " + what);
}

// Reads the header straight into its final form. The grammar is four levels deep and fixed, so each
// place in it is a state; whatever does not fit the state is refused, which bounds depth as well.
class HeaderReader final : public nlohmann::json_sax<json> {
 public:
  HeaderReader(const std::string& where, SafetensorsHeader& header)
      : where_(where), header_(header) {}

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("true or false"); }
  bool number_float(number_float_t, const string_t& text) override {
    return unexpected("the number " + text);
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_integer(number_integer_t value) override {
    // Only negative numbers arrive here; the others are number_unsigned.
    return unexpected(fmt::format("the negative number {}", value));
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kShape) {
      if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        fail("has a dimension larger than 2^63 - 1");
      }
      if (tensor_->shape.size() == kMostDimensions) {
        fail(fmt::format("has more than {} dimensions", kMostDimensions));
      }
      tensor_->shape.push_back(static_cast<std::int64_t>(value));
      return true;
    }
    if (state_ == State::kOffsets) {
      if (offsets_ == 2) fail("has more than two data_offsets");
      (offsets_ == 0 ? tensor_->begin : tensor_->end) = value;
      ++offsets_;
      return true;
    }
    return unexpected(fmt::format("the number {}", value));
  }

  bool string(string_t& value) override {
    if (state_ == State::kDtype) {
      const std::optional<DType> dtype = dtype_from_name(value);
      if (!dtype) fail("has the unknown dtype " + quote(value));
      tensor_->dtype = *dtype;
      state_ = State::kTensor;
      return true;
    }
    if (state_ == State::kMetadataValue) {
      *metadata_value_ = std::move(value);
      state_ = State::kMetadata;
      return true;
    }
    return unexpected("the text " + quote(value));
  }

  bool start_object(std::size_t) override {
    switch (state_) {
      case State::kStart:
        state_ = State::kTop;
        return true;
      case State::kTensorValue:
        state_ = State::kTensor;
        return true;
      case State::kMetadataStart:
        state_ = State::kMetadata;
        return true;
      default:
        return unexpected("an object");
    }
  }

  bool end_object() override {
    if (state_ == State::kTensor) {
      if (!seen_dtype_) fail("has no dtype");
      if (!seen_shape_) fail("has no shape");
      if (!seen_offsets_) fail("has no data_offsets");
      state_ = State::kTop;
    } else {
      state_ = state_ == State::kMetadata ? State::kTop : State::kEnd;
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (state_ == State::kShapeStart) return state_ = State::kShape, true;
    if (state_ == State::kOffsetsStart) return state_ = State::kOffsets, true;
    return unexpected("a list");
  }

  bool end_array() override {
    if (state_ == State::kOffsets && offsets_ != 2) fail("wants two data_offsets");
    state_ = State::kTensor;
    return true;
  }

  bool key(string_t& value) override {
    if (state_ == State::kTop) return top_key(value);
    if (state_ == State::kMetadata) return metadata_key(value);
    const auto once = [&](bool& seen, State next) {
      if (seen) fail(fmt::format("has {} twice", value));
      seen = true;
      state_ = next;
      return true;
    };
    if (value == "dtype") return once(seen_dtype_, State::kDtype);
    if (value == "shape") return once(seen_shape_, State::kShapeStart);
    if (value == "data_offsets") return once(seen_offsets_, State::kOffsetsStart);
    fail(fmt::format("has the unknown field {}", quote(value)));
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    refuse(where_, fmt::format("the header is not valid JSON near its byte {}", position));
  }

 private:
  enum class State {
    kStart,          // before the outer {
    kTop,            // between tensors
    kTensorValue,    // after a tensor's name
    kTensor,         // between a tensor's fields
    kDtype,          // after "dtype"
    kShapeStart,     // after "shape"
    kShape,          // inside its list
    kOffsetsStart,   // after "data_offsets"
    kOffsets,        // inside its list
    kMetadataStart,  // after "__metadata__"
    kMetadata,       // between its entries
    kMetadataValue,  // after an entry's name
    kEnd,            // after the outer }
  };

  [[noreturn]] void fail(const std::string& what) const {
    refuse(where_, fmt::format("tensor {} {}", quote(name_), what));
  }

  bool unexpected(const std::string& what) const {
    switch (state_) {
      case State::kStart:
        refuse(where_, "the header must be a JSON object, got " + what);
      case State::kMetadataStart:
      case State::kMetadataValue:
        refuse(where_, "__metadata__ maps text to text, got " + what);
      case State::kShape:
      case State::kShapeStart:
        fail("has a shape that is no list of whole numbers: got " + what);
      case State::kOffsets:
      case State::kOffsetsStart:
        fail("has data_offsets that are not two whole numbers: got " + what);
      default:
        fail("has an entry of the wrong kind: got " + what);
    }
  }

  void check_length(const std::string& text) const {
    if (text.size() <= kLongestName) return;
    refuse(where_, fmt::format("the name {} is longer than {} bytes", quote(text), kLongestName));
  }

  // Names of tensors end up in messages on terminals, so control characters are refused here once
  // and for all.
  void check_no_control_characters(const std::string& text) const {
    const auto is_control = [](char c) {
      return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
    };
    if (std::none_of(text.begin(), text.end(), is_control)) return;
    refuse(where_, fmt::format("the name {} holds control characters", quote(text)));
  }

  bool top_key(string_t& value) {
    check_length(value);
    if (value == "__metadata__") {
      if (seen_metadata_) refuse(where_, "__metadata__ occurs twice");
      seen_metadata_ = true;
      state_ = State::kMetadataStart;
      return true;
    }
    if (header_.tensors.size() == kMostTensors)
      refuse(where_, fmt::format("more than {} tensors", kMostTensors));
    check_no_control_characters(value);
    name_ = std::move(value);
    const auto [place, is_new] = header_.tensors.try_emplace(name_);
    if (!is_new) fail("occurs twice");
    tensor_ = &place->second;
    seen_dtype_ = seen_shape_ = seen_offsets_ = false;
    offsets_ = 0;
    state_ = State::kTensorValue;
    return true;
  }

  bool metadata_key(string_t& value) {
    check_length(value);
    if (header_.metadata.size() == kMostMetadata) {
      refuse(where_, fmt::format("more than {} entries in __metadata__", kMostMetadata));
    }
    const auto [place, is_new] = header_.metadata.try_emplace(std::move(value));
    if (!is_new)
      refuse(where_, fmt::format("the __metadata__ key {} occurs twice", quote(place->first)));
    metadata_value_ = &place->second;
    state_ = State::kMetadataValue;
    return true;
  }

  const std::string& where_;
  SafetensorsHeader& header_;
  State state_ = State::kStart;
  std::string name_;
  HeaderTensor* tensor_ = nullptr;
  std::string* metadata_value_ = nullptr;
  bool seen_metadata_ = false;
  bool seen_dtype_ = false, seen_shape_ = false, seen_offsets_ = false;
  int offsets_ = 0;
};

// Zeros count as one, so that no order of dimensions lets a stride computed later overflow.
void check_shape(const std::string& name, const HeaderTensor& tensor, const std::string& where) {
  std::uint64_t product = bits(tensor.dtype);
  bool empty = false;
  for (const std::int64_t size : tensor.shape) {
    if (size == 0) empty = true;
    const auto factor = static_cast<std::uint64_t>(std::max<std::int64_t>(size, 1));
    if (product > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / factor) {
      refuse(where, fmt::format("tensor {} has a shape whose size overflows", quote(name)));
    }
    product *= factor;
  }
  if (empty) product = 0;
  if (product % 8 != 0) {
    refuse(where, fmt::format("tensor {} does not fill whole bytes", quote(name)));
  }
  if (product / 8 != tensor.end - tensor.begin) {
    refuse(where,
           fmt::format("tensor {} has {} bytes by its data_offsets, but {} by its shape and dtype",
                       quote(name), tensor.end - tensor.begin, product / 8));
  }
}

void check_layout(const SafetensorsHeader& header, std::uint64_t data_size,
                  const std::string& where) {
  using Entry = std::pair<const std::string, HeaderTensor>;
  std::vector<const Entry*> order;
  order.reserve(header.tensors.size());
  for (const Entry& entry : header.tensors) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return std::pair(a->second.begin, a->second.end) < std::pair(b->second.begin, b->second.end);
  });
  std::uint64_t expected = 0;
  for (const Entry* entry : order) {
    const auto& [name, tensor] = *entry;
    if (tensor.end < tensor.begin) {
      refuse(where, fmt::format("tensor {} ends at byte {}, before its begin at {}", quote(name),
                                tensor.end, tensor.begin));
    }
    if (tensor.begin != expected) {
      refuse(where, fmt::format("tensor {} begins at byte {}, want {} ({})", quote(name),
                                tensor.begin, expected,
                                tensor.begin < expected ? "tensors overlap" : "a hole before it"));
    }
    if (tensor.end > data_size) {
      refuse(
          where,
          fmt::format(
              "tensor {} ends at byte {}, but only {} bytes of data are there: the file is cut off",
              quote(name), tensor.end, data_size));
    }
    check_shape(name, tensor, where);
    expected = tensor.end;
  }
  if (expected != data_size) {
    refuse(where, fmt::format("{} bytes follow the last tensor", data_size - expected));
  }
}

}  // namespace

void check_header_length(std::uint64_t length, std::uint64_t file_size, const std::string& where) {
  if (length > kLongestHeader) {
    refuse(where,
           fmt::format(
               "claims a header of {} bytes, the format allows {}: this is no safetensors file",
               length, kLongestHeader));
  }
  if (file_size < 8 || length > file_size - 8) {
    refuse(where,
           fmt::format("claims a header of {} bytes, but the file has only {}: the file is cut off",
                       length, file_size));
  }
  if (length > kHeaderAlwaysFine && length > file_size / 4) {
    refuse(where, fmt::format("has a header of {} bytes in a file of {}: more than a quarter",
                              length, file_size));
  }
}

SafetensorsHeader parse_header(std::string_view json_text, std::uint64_t data_size,
                               const std::string& where) {
  if (json_text.empty() || json_text.front() != '{') {
    refuse(where, "the header does not begin with '{': this is no safetensors file");
  }
  // nlohmann's parser takes a zero byte for the end of its input, and what follows would go unseen.
  if (json_text.find('\0') != std::string_view::npos) refuse(where, "the header holds a zero byte");
  SafetensorsHeader header;
  HeaderReader reader(where, header);
  json::sax_parse(json_text.begin(), json_text.end(), &reader);
  check_layout(header, data_size, where);
  return header;
}

}  // namespace limner::engine::weights
