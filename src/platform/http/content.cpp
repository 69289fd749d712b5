#include "platform/http/content.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

namespace limner::platform::http {
namespace {

// The reference's own cap on the JSON header of a safetensors file.
constexpr std::uint64_t kMaxHeader = 100'000'000;

[[noreturn]] void refuse(const std::string& where, const std::string& why) {
  throw Failure(ErrorCode::kInvalidModel,
                fmt::format("[download] {}: wanted is a safetensors file, and {}", where, why));
}

std::uint64_t header_length(std::span<const std::byte> head) {
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | std::to_integer<std::uint64_t>(head[i]);
  return length;
}

// What other thing begins like this; "" when nothing known does.
std::string_view other_kind(std::string_view head) {
  if (head.starts_with("PK\x03\x04") || head.starts_with("PK\x05\x06")) {
    return "this is a zip archive (a Python pickle of torch.save, perhaps), which limner never "
           "opens";
  }
  if (head.size() >= 2 && head[0] == '\x80' && head[1] >= 1 && head[1] <= 5) {
    return "this is a Python pickle, which can run code when it is opened";
  }
  if (head.starts_with("\x1f\x8b")) return "this is gzip-compressed";
  if (head.starts_with("GGUF")) return "this is a GGUF file";
  if (head.starts_with("\x89HDF")) return "this is an HDF5 file";
  if (head.starts_with("version https://git-lfs")) return "this is a Git LFS pointer";
  const auto text = head.find_first_not_of(" \t\r\n");
  if (text == std::string_view::npos) return "";
  if (head[text] == '<') return "this is a web page: perhaps one has to log in there";
  if (head[text] == '{' && text == 0) return "this is a JSON text: perhaps an error message";
  return "";
}

// Finds where the last tensor ends without building the header in memory: it came from a stranger
// and may be a hundred megabytes of brackets.
class DataEnd : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::uint64_t bytes() const { return bytes_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t value) override {
    // {"name": {"data_offsets": [first, last]}}
    if (depth_ == 3 && in_offsets_) bytes_ = std::max<std::uint64_t>(bytes_, value);
    return true;
  }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return ++depth_ > 0; }
  bool end_object() override { return --depth_ >= 0; }
  bool start_array(std::size_t) override { return ++depth_ > 0; }
  bool end_array() override { return --depth_ >= 0; }
  bool key(string_t& name) override {
    if (depth_ == 2) in_offsets_ = name == "data_offsets";
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  int depth_ = 0;
  bool in_offsets_ = false;
  std::uint64_t bytes_ = 0;
};

}  // namespace

void check_head(std::span<const std::byte> head, std::optional<std::uint64_t> total, Content wanted,
                const std::string& where) {
  if (wanted == Content::kAny) return;
  const std::string_view text(reinterpret_cast<const char*>(head.data()), head.size());
  // First whether it can be one: the length may begin with any byte, also with one of theirs.
  const std::uint64_t length = head.size() < 9 ? 0 : header_length(head);
  if (length < 2 || length > kMaxHeader || text[8] != '{') {
    const auto other = other_kind(text);
    if (!other.empty()) refuse(where, std::string(other));
    if (head.size() < 9) refuse(where, fmt::format("this has {} bytes", head.size()));
    refuse(where, "this does not begin like one");
  }
  if (total && *total < 8 + length) {
    refuse(where, fmt::format("its header alone has {} bytes of {}", 8 + length, *total));
  }
}

void check_file(const std::filesystem::path& file, Content wanted, const std::string& where) {
  if (wanted == Content::kAny) return;
  std::ifstream in(file, std::ios::binary);
  std::vector<std::byte> head(kHeadBytes);
  in.read(reinterpret_cast<char*>(head.data()), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<std::size_t>(in.gcount()));
  const std::uint64_t bytes = std::filesystem::file_size(file);
  check_head(head, bytes, wanted, where);
  in.clear();
  in.seekg(8);
  std::string text(static_cast<std::size_t>(header_length(head)), '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    throw Failure(ErrorCode::kIo, fmt::format("[download] cannot read {} back", file.string()));
  }
  DataEnd end;
  if (!nlohmann::json::sax_parse(text, &end))
    refuse(where, "the header of this one cannot be read");
  const std::uint64_t wanted_bytes = 8 + text.size() + end.bytes();
  if (bytes != wanted_bytes) {
    refuse(where,
           fmt::format("this one has {} bytes where its header tells of {}", bytes, wanted_bytes));
  }
}

}  // namespace limner::platform::http
