# Flags that every target of limner is built with.
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

# nvcc takes none of these as they stand.
set(LIMNER_HOST_LANGUAGES "$<COMPILE_LANGUAGE:C,CXX>")
add_compile_options(
  "$<${LIMNER_HOST_LANGUAGES}:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wno-unused-parameter;-Wno-psabi>")
if(LIMNER_WERROR)
  add_compile_options("$<${LIMNER_HOST_LANGUAGES}:-Werror>")
endif()
if(LIMNER_SANITIZE)
  # Not vptr: SOCI exports no type information of its inner classes. Instrumented code makes GCC see uninitialized
  # variables where there are none, and Asio's coroutine frames freed by the wrong function; and it says of Asio's
  # fences that ThreadSanitizer does not follow them.
  add_compile_options("$<${LIMNER_HOST_LANGUAGES}:-fsanitize=${LIMNER_SANITIZE};-fno-sanitize=vptr;\
-fno-omit-frame-pointer;-g1;-Wno-maybe-uninitialized;-Wno-mismatched-new-delete;-Wno-tsan>")
  add_link_options(-fsanitize=${LIMNER_SANITIZE})
endif()

# mold links the torch rooms four times faster than bfd; any linker will do.
find_program(LIMNER_MOLD mold)
if(LIMNER_MOLD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 12.1)
  add_link_options(-fuse-ld=mold)
endif()
