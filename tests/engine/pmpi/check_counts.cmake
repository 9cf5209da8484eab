# Runs test_comm_mpi under the counting wrapper and holds both counts against each other.
# cmake -DMPIRUN=.. -DPROGRAM=.. -DWRAPPER=.. -DWORK=<dir> -DRANKS=<n> -P check_counts.cmake
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
execute_process(
  COMMAND ${MPIRUN} --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1
          -np ${RANKS} -x LD_PRELOAD=${WRAPPER} -x PMPI_COUNT_OUT=${WORK}/wrapper
          -x ORRERY_COMM_TOTALS=${WORK}/engine ${PROGRAM}
  RESULT_VARIABLE code)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "test_comm_mpi ended with ${code} under the wrapper")
endif()
math(EXPR last "${RANKS} - 1")
foreach(rank RANGE ${last})
  file(STRINGS ${WORK}/engine.${rank} engine)
  file(STRINGS ${WORK}/wrapper.${rank} wrapper)
  list(FILTER wrapper EXCLUDE REGEX ":rendezvous ")
  list(SORT engine)
  list(SORT wrapper)
  list(LENGTH engine lines)
  if(lines LESS 3)
    message(FATAL_ERROR "rank ${rank}: only ${lines} channels carried data: ${engine}")
  endif()
  if(NOT engine STREQUAL wrapper)
    message(FATAL_ERROR "rank ${rank}: the back end counted\n${engine}\nMPI was handed\n${wrapper}")
  endif()
endforeach()
