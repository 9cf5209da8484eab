# The two helpers with which every folder declares its targets. Sources are listed, never globbed.
add_library(orrery_warnings INTERFACE)
target_compile_options(orrery_warnings INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow
                       -Wnon-virtual-dtor -Werror)

# orrery_library(name SOURCES a.cpp ... DEPS lib ... PRIVATE_DEPS lib ...)
function(orrery_library name)
  cmake_parse_arguments(A "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${A_DEPS} PRIVATE orrery_warnings ${A_PRIVATE_DEPS})
endfunction()

# orrery_test(name LABEL unit SOURCES a_test.cpp ... DEPS lib ... [TIMEOUT seconds] [MAYBE Suite.*]
#             [ALONE])
# One label a test binary: gtest_discover_tests keeps only the first label of a list. The target
# tests_LABEL builds all binaries of a label. On the wheel, and elsewhere for the labels torch and
# parity, a binary is one test of ctest and has the time of four: libtorch takes half a second of
# processor time to load (the wheel's more), so a process for each case would cost more than the
# cases. One case: build/release/tests/NAME --gtest_filter=CASE. MAYBE names the suite that skips
# itself where the machine lacks something: NAME_maybe, so that ctest's summary shows the skip.
# ALONE: no other test beside it, for what needs its threads to run.
function(orrery_test name)
  cmake_parse_arguments(A "ALONE" "LABEL;TIMEOUT;MAYBE" "SOURCES;DEPS" ${ARGN})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 120)
  endif()
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE ${A_DEPS} orrery_warnings GTest::gtest GTest::gtest_main)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_compile_definitions(${name} PRIVATE
    ORRERY_SOURCE_DIR="${PROJECT_SOURCE_DIR}" ORRERY_BINARY_DIR="${CMAKE_BINARY_DIR}")
  if(NOT TARGET tests_${A_LABEL})
    add_custom_target(tests_${A_LABEL})
  endif()
  add_dependencies(tests_${A_LABEL} ${name})
  if(ORRERY_WITH_WHEEL OR A_LABEL STREQUAL "torch" OR A_LABEL STREQUAL "parity")
    math(EXPR A_TIMEOUT "4 * ${A_TIMEOUT}")
    if(A_MAYBE)
      add_test(NAME ${name} COMMAND ${name} --gtest_filter=-${A_MAYBE})
      add_test(NAME ${name}_maybe COMMAND ${name} --gtest_filter=${A_MAYBE})
      set_tests_properties(${name}_maybe PROPERTIES LABELS ${A_LABEL} TIMEOUT ${A_TIMEOUT}
                           SKIP_REGULAR_EXPRESSION "\\[  SKIPPED \\]")
    else()
      add_test(NAME ${name} COMMAND ${name})
    endif()
    # The longest begin first (COST), or the last one runs alone.
    set_tests_properties(${name} PROPERTIES LABELS ${A_LABEL} TIMEOUT ${A_TIMEOUT}
                         COST ${A_TIMEOUT} RUN_SERIAL ${A_ALONE})
  else()
    gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60
                         PROPERTIES LABELS ${A_LABEL} TIMEOUT ${A_TIMEOUT} COST ${A_TIMEOUT})
  endif()
endfunction()

# orrery_embed(source FILES a.sql ... HEADER folder/rows.h NAMESPACE orrery ROW Row FUNCTION rows)
# Files as constants: `source` becomes a C++ source in the build folder; see embed.cmake.
function(orrery_embed source)
  cmake_parse_arguments(A "" "HEADER;NAMESPACE;ROW;FUNCTION" "FILES" ${ARGN})
  list(TRANSFORM A_FILES PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  list(JOIN A_FILES "," files)
  add_custom_command(
    OUTPUT ${source}
    COMMAND ${CMAKE_COMMAND} -DOUT=${source} -DFILES=${files} -DHEADER=${A_HEADER}
            -DNAMESPACE=${A_NAMESPACE} -DROW=${A_ROW} -DFUNCTION=${A_FUNCTION}
            -P ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    DEPENDS ${A_FILES} ${PROJECT_SOURCE_DIR}/cmake/embed.cmake
    VERBATIM)
endfunction()
