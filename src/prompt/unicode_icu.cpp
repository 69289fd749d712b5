#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "prompt/unicode.h"

namespace limner::prompt {
namespace {

constexpr auto kL = CharacterClass::kLetter;
constexpr auto kN = CharacterClass::kNumber;

struct ClassRange {
  char32_t first;
  char32_t last;
  CharacterClass character_class;
};

// Letters and numbers of Unicode 15.1 and 16, which the reference knows and Debian 12's ICU 72 does
// not.
constexpr ClassRange kNewerThanIcu[] = {
    {0x1C89, 0x1C8A, kL},   {0xA7CB, 0xA7CD, kL},   {0xA7DA, 0xA7DC, kL},   {0x105C0, 0x105F3, kL},
    {0x10D40, 0x10D49, kN}, {0x10D4A, 0x10D65, kL}, {0x10D6F, 0x10D85, kL}, {0x10EC2, 0x10EC4, kL},
    {0x11380, 0x11389, kL}, {0x1138B, 0x1138B, kL}, {0x1138E, 0x1138E, kL}, {0x11390, 0x113B5, kL},
    {0x113B7, 0x113B7, kL}, {0x113D1, 0x113D1, kL}, {0x113D3, 0x113D3, kL}, {0x116D0, 0x116E3, kN},
    {0x11BC0, 0x11BE0, kL}, {0x11BF0, 0x11BF9, kN}, {0x13460, 0x143FA, kL}, {0x16100, 0x1611D, kL},
    {0x16130, 0x16139, kN}, {0x16D40, 0x16D6C, kL}, {0x16D70, 0x16D79, kN}, {0x18CFF, 0x18CFF, kL},
    {0x1CCF0, 0x1CCF9, kN}, {0x1E5D0, 0x1E5ED, kL}, {0x1E5F0, 0x1E5F0, kL}, {0x1E5F1, 0x1E5FA, kN},
    {0x2EBF0, 0x2EE5D, kL},
};

struct LowerRange {
  char32_t first;
  char32_t last;
  char32_t lower_of_first;
};

// Upper case letters of Unicode 16 and 17.
constexpr LowerRange kNewerLower[] = {
    {0x1C89, 0x1C89, 0x1C8A},    {0xA7CB, 0xA7CB, 0x264},  {0xA7CC, 0xA7CC, 0xA7CD},
    {0xA7CE, 0xA7CE, 0xA7CF},    {0xA7D2, 0xA7D2, 0xA7D3}, {0xA7D4, 0xA7D4, 0xA7D5},
    {0xA7DA, 0xA7DA, 0xA7DB},    {0xA7DC, 0xA7DC, 0x19B},  {0x10D50, 0x10D65, 0x10D70},
    {0x16EA0, 0x16EB8, 0x16EBB},
};

template <typename Range, std::size_t size>
const Range* find_range(const Range (&ranges)[size], char32_t code) {
  const Range* after = std::upper_bound(std::begin(ranges), std::end(ranges), code,
                                        [](char32_t c, const Range& r) { return c < r.first; });
  if (after == std::begin(ranges)) return nullptr;
  const Range* range = std::prev(after);
  return code <= range->last ? range : nullptr;
}

char32_t simple_lower(char32_t code) {
  const auto lower = static_cast<char32_t>(u_tolower(static_cast<UChar32>(code)));
  if (lower != code || code < kNewerLower[0].first) return lower;
  const LowerRange* newer = find_range(kNewerLower, code);
  return newer ? newer->lower_of_first + (code - newer->first) : code;
}

// The first code point that any composition can involve as a second part, or that can reorder.
constexpr char32_t kFirstCombining = 0x300;

const icu::Normalizer2& nfc() {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = icu::Normalizer2::getNFCInstance(status);
  if (U_FAILURE(status)) {
    throw Failure(ErrorCode::kInternal, "[prompt] ICU has no normalisation data");
  }
  return *normalizer;
}

// Unicode 9: the version of the tables that the reference normalises with.
bool takes_part(char32_t code) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(code), age);
  return age[0] != 0 && age[0] <= 9;
}

int combining_class(char32_t code) {
  if (code < kFirstCombining) return 0;
  const int value = u_getCombiningClass(static_cast<UChar32>(code));
  return value != 0 && takes_part(code) ? value : 0;
}

std::vector<Character> decompose(const icu::Normalizer2& normalizer,
                                 const std::vector<Character>& characters) {
  std::vector<Character> parts;
  parts.reserve(characters.size());
  icu::UnicodeString text;
  for (const Character& character : characters) {
    const auto code = static_cast<UChar32>(character.code);
    if (character.code < 0x80 || !normalizer.getDecomposition(code, text) ||
        !takes_part(character.code)) {
      parts.push_back(character);
      continue;
    }
    for (int i = 0; i < text.length();) {
      const UChar32 part = text.char32At(i);
      parts.push_back({static_cast<char32_t>(part), character.begin, character.end});
      i += U16_LENGTH(part);
    }
  }
  return parts;
}

// Sorts each run of combining marks by class, keeping the order of equals.
std::vector<int> order_marks(std::vector<Character>& parts) {
  std::vector<int> classes(parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) classes[i] = combining_class(parts[i].code);
  for (std::size_t i = 0; i < parts.size();) {
    std::size_t end = i;
    while (end < parts.size() && classes[end] != 0) ++end;
    if (end - i > 1 && !std::is_sorted(&classes[i], &classes[i] + (end - i))) {
      std::stable_sort(&parts[i], &parts[i] + (end - i), [](const auto& a, const auto& b) {
        return combining_class(a.code) < combining_class(b.code);
      });
      std::sort(&classes[i], &classes[i] + (end - i));
    }
    i = end + 1;
  }
  return classes;
}

}  // namespace

CharacterClass character_class(char32_t code) {
  const auto c = static_cast<UChar32>(code);
  if (u_isUWhiteSpace(c)) return CharacterClass::kSpace;
  const std::uint32_t category = U_GET_GC_MASK(c);
  if (category & U_GC_L_MASK) return CharacterClass::kLetter;
  if (category & U_GC_N_MASK) return CharacterClass::kNumber;
  if (!(category & U_GC_CN_MASK)) return CharacterClass::kOther;
  const ClassRange* newer = find_range(kNewerThanIcu, code);
  return newer ? newer->character_class : CharacterClass::kOther;
}

std::vector<Character> compose(std::vector<Character> characters) {
  const bool plain = std::all_of(characters.begin(), characters.end(),
                                 [](const Character& c) { return c.code < kFirstCombining; });
  if (plain) return characters;
  const icu::Normalizer2& normalizer = nfc();
  std::vector<Character> parts = decompose(normalizer, characters);
  const std::vector<int> classes = order_marks(parts);

  std::vector<Character> composed;
  composed.reserve(parts.size());
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  std::size_t starter = kNone;
  int last_class = 0;  // of the last part kept after the starter; 0 right behind it
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const bool adjacent = starter != kNone && starter + 1 == composed.size();
    if (starter != kNone && (adjacent || last_class < classes[i])) {
      const UChar32 pair = normalizer.composePair(static_cast<UChar32>(composed[starter].code),
                                                  static_cast<UChar32>(parts[i].code));
      if (pair >= 0 && takes_part(static_cast<char32_t>(pair))) {
        Character& whole = composed[starter];
        whole.code = static_cast<char32_t>(pair);
        whole.begin = std::min(whole.begin, parts[i].begin);
        whole.end = std::max(whole.end, parts[i].end);
        continue;
      }
    }
    if (classes[i] == 0) starter = composed.size();
    last_class = classes[i];
    composed.push_back(parts[i]);
  }
  return composed;
}

std::vector<Character> lower_case(const std::vector<Character>& characters) {
  constexpr char32_t kCapitalIWithDot = 0x130;
  constexpr char32_t kDotAbove = 0x307;
  std::vector<Character> lowered;
  lowered.reserve(characters.size());
  for (Character character : characters) {
    if (character.code == kCapitalIWithDot) {
      character.code = 'i';
      lowered.push_back(character);
      character.code = kDotAbove;
    } else {
      character.code = simple_lower(character.code);
    }
    lowered.push_back(character);
  }
  return lowered;
}

}  // namespace limner::prompt
