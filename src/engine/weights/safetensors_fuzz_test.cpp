// Structure-aware fuzzing of the safetensors reader: valid files are built from a seed, then
// damaged in the ways that attacks on such parsers work, and opened. Whatever is accepted must hold
// what the reader promises. Deterministic; LIMNER_FUZZ_SECONDS makes it run longer and
// LIMNER_FUZZ_SEED start elsewhere.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>

#include "base/fuzzing.h"
#include "engine/weights/json.h"
#include "engine/weights/safetensors.h"
#include "engine/weights/safetensors_header.h"
#include "engine/weights/testing.h"

namespace limner::engine::weights {
namespace {

class Generator {
 public:
  explicit Generator(std::uint64_t seed) : random_(seed) {}

  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }

  // A number of the kind that breaks parsers, or a small one.
  std::string number() {
    static const char* const kNasty[] = {"0",
                                         "-1",
                                         "4",
                                         "8",
                                         "1e3",
                                         "1.0",
                                         "-0",
                                         "4294967295",
                                         "4294967296",
                                         "9223372036854775807",
                                         "9223372036854775808",
                                         "18446744073709551615",
                                         "18446744073709551616",
                                         "4611686018427387905",
                                         "211106198978564",
                                         "4194305",
                                         "99999999999999999999999",
                                         "1e400"};
    if (one_in(2)) return std::to_string(below(64));
    return kNasty[below(std::size(kNasty))];
  }

  // A well-formed file, its header in pieces that mutate() may change.
  std::string file() {
    std::string header = "{";
    std::string data;
    if (one_in(3)) header += R"("__metadata__":{"format":"pt","x":"y"})";
    const std::uint64_t tensors = below(5);
    for (std::uint64_t i = 0; i < tensors; ++i) {
      if (header.size() > 1) header += ',';
      const auto dtype = static_cast<DType>(below(static_cast<unsigned>(DType::kC64) + 1));
      std::uint64_t elements = 8;  // whole bytes for every dtype
      std::string shape = "8";
      for (std::uint64_t n = below(3); n > 0; --n) {
        const std::uint64_t size = below(4);
        elements *= size;
        shape += fmt::format(",{}", size);
      }
      const std::size_t begin = data.size();
      data.append(elements * bits(dtype) / 8, static_cast<char>(below(256)));
      header += fmt::format(R"("t{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", i,
                            name(dtype), shape, begin, data.size());
    }
    header += "}";
    header.append(below(9), ' ');
    for (std::uint64_t n = below(4); n > 0; --n) mutate_header(header);
    std::string bytes = testing::raw_safetensors(header, data);
    for (std::uint64_t n = below(3); n > 0; --n) mutate_bytes(bytes);
    return bytes;
  }

 private:
  void mutate_header(std::string& header) {
    switch (below(8)) {
      case 0:
        return replace_number(header);
      case 1:
        return replace_number(header);
      case 2:
        return replace_word(header);
      case 3:
        return duplicate_piece(header);
      case 4:
        if (!header.empty()) header.erase(below(header.size()), 1 + below(8));
        return;
      case 5:
        header.insert(below(header.size() + 1), std::string(1, "{}[],:\"\\ \0\xff\xc3"[below(12)]));
        return;
      case 6:
        header.insert(below(header.size() + 1), std::string(1 + below(300), "[{"[below(2)]));
        return;
      default:
        if (!header.empty()) header[below(header.size())] = static_cast<char>(below(256));
        return;
    }
  }

  void replace_number(std::string& header) {
    std::vector<std::size_t> starts;
    for (std::size_t i = 1; i < header.size(); ++i) {
      const auto digit = [&](std::size_t k) { return header[k] >= '0' && header[k] <= '9'; };
      if (digit(i) && (header[i - 1] == '[' || header[i - 1] == ',')) starts.push_back(i);
    }
    if (starts.empty()) return;
    const std::size_t begin = starts[below(starts.size())];
    const std::size_t end = header.find_first_not_of("0123456789", begin);
    header.replace(begin, end == std::string::npos ? end : end - begin, number());
  }

  void replace_word(std::string& header) {
    static const char* const kWords[] = {
        "dtype", "shape",        "data_offsets", "F32", "F16",  "F4",      "F6_E2M3", "U8",
        "I64",   "__metadata__", "t0",           "t1",  "null", "\\u0000", "\\ud800"};
    const std::string from = kWords[below(std::size(kWords))];
    const std::size_t at = header.find(from);
    if (at != std::string::npos) header.replace(at, from.size(), kWords[below(std::size(kWords))]);
  }

  void duplicate_piece(std::string& header) {
    if (header.empty()) return;
    const std::string piece = header.substr(below(header.size()), 1 + below(80));
    header.insert(below(header.size() + 1), piece);
  }

  void mutate_bytes(std::string& bytes) {
    switch (below(5)) {
      case 0:
        bytes.resize(below(bytes.size() + 1));
        return;
      case 1:
        bytes.append(1 + below(16), 'x');
        return;
      case 2:
        if (bytes.size() >= 8) bytes.replace(0, 8, testing::little_endian(random_() >> below(64)));
        return;
      case 3:
        if (bytes.size() >= 8) bytes[below(8)] = static_cast<char>(below(256));
        return;
      default:
        if (!bytes.empty()) bytes[below(bytes.size())] ^= static_cast<char>(1u << below(8));
        return;
    }
  }

  std::mt19937_64 random_;
};

// Reads every byte of every tensor, so that a view outside the file would crash, and checks the
// promises.
std::uint64_t check_accepted(const SafetensorsFile& file) {
  std::uint64_t sum = 0, total = 0;
  for (const auto& [name, view] : file.tensors()) {
    std::uint64_t elements = 1;
    for (const std::int64_t size : view.shape) {
      EXPECT_GE(size, 0);
      elements *= static_cast<std::uint64_t>(size);
    }
    EXPECT_EQ(elements * bits(view.dtype), view.bytes.size() * 8);
    EXPECT_LE(name.size(), kLongestName);
    EXPECT_TRUE(file.owns(view));
    for (const std::byte byte : view.bytes) sum += std::to_integer<std::uint64_t>(byte);
    total += view.bytes.size();
  }
  EXPECT_LE(total + 10, file.file_size());  // no byte belongs to two tensors
  return sum;
}

// One file for all runs: making a new one each time would be most of the work.
class Scratch {
 public:
  Scratch() : path_(folder_.path() / "x.safetensors") {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  }
  ~Scratch() { ::close(descriptor_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  // Whether the reader takes a file of these bytes.
  bool accepts(const std::string& bytes) {
    EXPECT_EQ(::ftruncate(descriptor_, 0), 0);
    EXPECT_EQ(::pwrite(descriptor_, bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
    const auto file = SafetensorsFile::open(path_);
    if (file.ok()) {
      sum_ += check_accepted(*file);
      return true;
    }
    EXPECT_FALSE(file.error().message.empty());
    EXPECT_LT(file.error().message.size(), 2000u);
    return false;
  }
  std::uint64_t checksum() const { return sum_; }

 private:
  testing::TemporaryFolder folder_;
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::uint64_t sum_ = 0;
};

TEST(SafetensorsFuzz, TheKeptCorpusIsReadOrRefused) {
  Scratch scratch;
  for (const auto& [file, bytes] : fuzzing::corpus("safetensors"))
    EXPECT_EQ(scratch.accepts(bytes), file.filename() == "good.safetensors") << file;
}

TEST(SafetensorsFuzz, NoDamagedFileCrashesTheReader) {
  Scratch scratch;
  std::uint64_t accepted = 0;
  const std::uint64_t runs = fuzzing::run(
      2, [&](std::uint64_t seed) { accepted += scratch.accepts(Generator(seed).file()) ? 1 : 0; });
  std::printf("%llu accepted, checksum %llu\n", static_cast<unsigned long long>(accepted),
              static_cast<unsigned long long>(scratch.checksum()));
  // Both sides must be reached, or the generator tests nothing.
  EXPECT_GT(accepted, runs / 20);
  EXPECT_LT(accepted, runs * 19 / 20);
}

// The header alone, without the file system: many more runs in the same time.
TEST(SafetensorsFuzz, NoHeaderCrashesTheParser) {
  const std::string where = "x";
  fuzzing::run(1, [&](std::uint64_t seed) {
    const std::string bytes = Generator(seed + 1'000'003).file();
    const std::string_view header =
        std::string_view(bytes).substr(std::min<std::size_t>(8, bytes.size()));
    const std::string_view json = header.substr(0, header.rfind('}') + 1);
    try {
      parse_header(json, header.size() - json.size(), where);
    } catch (const Failure&) {
    }
    try {
      const nlohmann::json tree = parse_json(json, where);
      // Whatever strict parsing accepts survives being written and read again.
      ASSERT_EQ(parse_json(tree.dump(), where), tree);
    } catch (const Failure&) {
    }
  });
}

}  // namespace
}  // namespace limner::engine::weights
